//! hopgate: a WebSocket-aware reverse proxy. The modules in the order in which a request meets them.

pub mod access;
pub mod acme;
pub mod cli;
pub mod config;
pub mod nginx;
pub mod server;
pub mod shared;
pub mod state;
pub mod systemd;
pub mod takeover;

pub mod buffers;
pub mod http1;
pub mod http2;
pub mod io;
pub mod memory;
pub mod proxy_protocol;
pub mod request;
pub mod timer;
pub mod tls;
pub mod turn;

pub mod headers;
pub mod routing;

pub mod answer;
pub mod client;
pub mod exchange;
pub mod files;
pub mod forward;
pub mod proxy;
pub mod reply;
pub mod upgrade;
pub mod websocket;

pub mod tunnel;
pub mod upstream;

pub mod clock;
pub mod error;
pub mod log;

pub mod demo;
pub mod explain;
