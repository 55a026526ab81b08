//! What Postern promises, tried from outside: the real binary, real sockets, a real provider and a real browser.
//!
//! One module per promise. Each test builds its own [`World`](support::World); none depends on another, none sleeps:
//! it waits for a condition, with a deadline. `docs/guides/testing.md` says how to run and extend them.

mod autocert;
mod autocert_staple;
mod autocert_store;
mod bodies;
mod check;
mod clients;
mod crash;
mod datagrams;
mod debug;
mod demo;
mod descriptors;
mod diff;
mod downstream_mtls;
mod drain;
mod explain;
mod footprint;
mod grpc;
mod headers;
mod inspect;
mod kubernetes;
mod limits;
mod logs;
mod metrics;
mod operator;
mod outage;
mod policy;
mod programs;
mod raw;
mod refresh;
mod reload;
mod roles;
mod rotation;
mod route_keys;
mod serverless;
mod service_accounts;
mod service_manager;
mod sessions;
mod sign_in_browser;
mod sign_in_curl;
mod sign_in_real_provider;
mod store;
mod support;
mod tls;
mod tls_derive;
mod tools;
mod tunnel;
mod upgrade;
mod upstream_balancing;
mod upstream_faults;
mod upstream_http;
mod upstream_tls;
mod use_proxy_protocol;
mod websocket;
