//! `hopgate demo`: an embedded app behind the proxy, the first thing that a newcomer runs.

use std::io::Write;
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;

use super::run::serve;
use super::{DemoArgs, EXIT_CONFIG};
use crate::config::Config;
use crate::demo;

/// Starts the app on a free port of loopback, and the proxy before it.
pub fn demo(args: &DemoArgs) -> u8 {
    let upstream = match start_app() {
        Ok(port) => format!("http://127.0.0.1:{port}"),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "hopgate: the demo app cannot be started: {error}");
            return EXIT_CONFIG;
        }
    };
    let (listen, workers) = ([args.listen()], args.workers.map(NonZeroUsize::get));
    let (app, has_tls) = (upstream.clone(), args.tls);
    let load = move || {
        let config = Config { workers, ..Config::quick(&listen, &app)? };
        Ok(if has_tls { config.with_self_signed() } else { config })
    };
    serve(load, |server| {
        let mut stdout = std::io::stdout();
        for address in server.addresses() {
            // Nobody may be listening: the log on stderr names the address, too.
            let scheme = if has_tls { "https" } else { "http" };
            let _ = writeln!(stdout, "Open this in a browser:\n\n    {scheme}://{address}/\n");
        }
        if has_tls {
            let _ = writeln!(
                stdout,
                "The certificate was made just now, so the browser warns of it, and `curl` wants `--insecure`. \
                 What you see\ncomes over HTTP/2, the WebSocket on the same connection.\n"
            );
        }
        let _ = writeln!(
            stdout,
            "It is a small app, at {upstream} by itself, behind hopgate. Ctrl-C ends the demo."
        );
    })
}

/// The app has a thread and a runtime of its own, as an app behind a proxy has a process of its own.
fn start_app() -> std::io::Result<u16> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("demo-app".into()).spawn(move || {
        runtime.block_on(async {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => demo::serve(listener).await,
                Err(error) => tracing::error!(%error, "the demo app cannot listen"),
            }
        });
    })?;
    Ok(port)
}
