//! Worlds for the tests: an edge, an upstream and clients. Each test builds its own.

mod client;
mod upstream;
mod world;

pub(crate) use client::Wire;
pub(crate) use upstream::{Script, Upstream};
pub(crate) use world::{HOST, World, WorldBuilder, now, route, target, tokens, until};
