mod lifecycle;
mod pair;
mod rekey;
