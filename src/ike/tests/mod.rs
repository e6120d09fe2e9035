mod hostile;
mod lifecycle;
mod pair;
mod refusals;
mod rekey;
