//! The programs that `benches/compare` puts around a proxy: an origin behind it, a load before it, and a bare relay
//! to compare it with. Each is one thread on epoll, so that what is measured is the proxy.

mod http2;
mod link;
mod load;
mod origin;
mod poller;
mod relay;
mod websocket;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// What `benches/compare` puts around a proxy.
#[derive(Debug, Parser)]
struct Arguments {
    /// What `cargo bench` gives every bench; means nothing here.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    program: Option<Program>,
}

#[derive(Debug, Subcommand)]
enum Program {
    /// An HTTP/1.1 server: bodies of N bytes at `/bytes/N` and wherever else, and WebSockets at `/echo` and `/bulk/MIB`. Prints its addresses.
    Origin {
        /// On so many ports.
        #[arg(long, default_value_t = 1)]
        ports: usize,
    },
    /// "The floor": accepts, connects, and copies bytes both ways without a look at them. Prints its addresses.
    Relay {
        /// Where it connects to; with several it has an address for each.
        #[arg(long, required = true)]
        to: Vec<SocketAddr>,
        /// Moves the bytes through a pipe in the kernel instead of a buffer.
        #[arg(long)]
        splice: bool,
    },
    /// WebSockets through a proxy. Prints one line of JSON about them.
    Load(Load),
}

/// What a load does, and to whom.
#[derive(Debug, Args)]
struct Load {
    /// What is done over and over.
    work: load::Work,
    /// The proxy.
    #[arg(long)]
    to: SocketAddr,
    /// Its process, whose CPU time is told.
    #[arg(long)]
    pid: u32,
    /// Tunnels at a time; for `open`, how many are being opened at a time.
    #[arg(long, default_value_t = 64)]
    tunnels: usize,
    /// Bytes in a message of `echo`, `open` and `idle`.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// How long `echo` and `open` go on, if not for a second, and `bulk`, if not to its end.
    #[arg(long)]
    seconds: Option<f64>,
    /// How long a tunnel of `echo` is silent before its next message, in ms.
    #[arg(long, default_value_t = 0.0)]
    pause: f64,
    /// How much `bulk` brings through each tunnel, in MiB.
    #[arg(long, default_value_t = 256)]
    mib: usize,
    /// Over TLS, believing in this authority: TLS 1.3, `TLS_AES_128_GCM_SHA256`, X25519.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Resumes a session of TLS wherever `open` connects anew; without it every handshake is a full one.
    #[arg(long, requires = "ca")]
    resume: bool,
    /// Over HTTP/2 (RFC 8441), with so many tunnels on one connection; 0: over HTTP/1.1.
    #[arg(long, default_value_t = 0)]
    streams: usize,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().program {
        // `cargo bench` and `cargo test --benches` run every bench: this one is no measurement by itself.
        None => return ExitCode::SUCCESS,
        Some(Program::Origin { ports }) => origin::run(ports),
        Some(Program::Relay { to, splice }) => relay::run(&to, splice),
        Some(Program::Load(load)) => load::run(&load),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
