mod hostile;
mod known_values;
mod lifecycle;
mod pair;
mod proposals;
mod refusals;
mod rekey;
