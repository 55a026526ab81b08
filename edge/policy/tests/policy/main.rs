//! Policies from the outside: the compatibility vectors, and laws that hold for every policy.

#[cfg(test)]
mod laws;
#[cfg(test)]
#[path = "../vectors/mod.rs"]
mod vectors;
#[cfg(test)]
mod verdicts;
