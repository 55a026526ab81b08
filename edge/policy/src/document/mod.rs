//! A parsed document that remembers where everything stood: what policies and `config.yaml` are read from.

mod mistake;
mod nearest;
mod node;
mod place;
mod reader;
mod scalar;

pub use mistake::Mistake;
pub use nearest::nearest;
pub use node::{Entry, Node, Value};
pub use place::Place;
pub use reader::{MAX_BYTES, MAX_DEPTH, MAX_NODES, read};
