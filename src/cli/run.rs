//! `hopgate run`: loads the configuration, binds, serves, and does what signals say.

use std::io::Write;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedSender;

use super::env::unused_with_file;
use super::orphans::Orphans;
use super::{EXIT_CONFIG, EXIT_DONE, RunArgs, report};
use crate::config::{Config, ConfigErrors, Warnings};
use crate::log::ErrorLogWriter;
use crate::server::inherited::Inherited;
use crate::server::{Control, Server};
use crate::systemd::Notifier;
use crate::takeover;

/// Runs until a signal ends it.
pub fn run(args: &RunArgs) -> u8 {
    let args = args.clone();
    let unused = match args.upstream {
        Some(_) => None,
        None => unused_with_file(|name| std::env::var_os(name)),
    };
    let ready = move |_: &Server| {
        if let Some(unused) = unused {
            tracing::info!(
                "{unused} not used: they are for running without a file, which says where to listen"
            );
        }
    };
    serve(move || args.load(), ready)
}

/// Serves the configuration that `load` gives, and asks it again for each reload; `ready` is told when
/// every address is bound.
pub(super) fn serve(load: impl Load, ready: impl FnOnce(&Server)) -> u8 {
    if let Some(code) = takeover::start_if_told() {
        return code;
    }
    // Before there are threads.
    let inherited = Inherited::from_env();
    let config = match load() {
        Ok(config) => config,
        Err(mistakes) => {
            if let Ok(Inherited { predecessor: Some(predecessor), .. }) = inherited {
                predecessor.failed(mistakes.summary());
            }
            return report(&mistakes);
        }
    };
    let log = match ErrorLogWriter::install(&config.error_log) {
        Ok(log) => log,
        Err(error) => return fault(&error),
    };
    let served = inherited.and_then(|inherited| bind_and_run(config, inherited, load, &log, ready));
    log.flush();
    match served {
        Ok(()) => EXIT_DONE,
        Err(error) => fault(&error),
    }
}

fn bind_and_run(
    mut config: Config,
    inherited: Inherited,
    load: impl Load,
    log: &ErrorLogWriter,
    ready: impl FnOnce(&Server),
) -> std::io::Result<()> {
    raise_file_limit();
    warn_of(std::mem::take(&mut config.warnings));
    let notifier = Notifier::from_env().unwrap_or_else(|error| {
        tracing::warn!("{error}");
        Notifier::default()
    });
    let server = Server::bind(config, inherited, notifier.clone())?;
    obey_signals(server.control(), load, log.clone(), notifier)?;
    for address in server.addresses() {
        tracing::info!("listening on {address}");
    }
    for address in server.health_addresses() {
        tracing::info!("health checks are answered on {address}");
    }
    tracing::info!("hopgate {} started, {} workers", env!("CARGO_PKG_VERSION"), server.workers());
    // On a terminal, what `ready` prints stands below these lines, not among them.
    log.flush();
    ready(&server);
    server.run()?;
    tracing::info!("stopped");
    Ok(())
}

/// A tunnel takes two descriptors, and the usual soft limit is 1024. It is that low for programs that use
/// `select`; one that does not may take what the hard limit gives.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn fault(error: &std::io::Error) -> u8 {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "hopgate: {error}");
    EXIT_CONFIG
}

/// Gives the configuration as it is now.
pub(super) trait Load: Fn() -> Result<Config, ConfigErrors> + Send + 'static {}

impl<F: Fn() -> Result<Config, ConfigErrors> + Send + 'static> Load for F {}

/// Starts the thread that turns signals into orders: SIGTERM drains and the second one stops at once, as
/// SIGINT does; SIGHUP reloads; SIGUSR1 reopens the logs; SIGUSR2 has a new process take over.
fn obey_signals(
    control: UnboundedSender<Control>,
    load: impl Load,
    log: ErrorLogWriter,
    notifier: Notifier,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        // The handlers are in place before anybody is told that hopgate has started.
        let _inside = runtime.enter();
        [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ]
        .map(signal)
    };
    let mut orphans = {
        let _inside = runtime.enter();
        Orphans::of_this_process()?
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let [Ok(terminate), Ok(interrupt), Ok(hangup), Ok(user1), Ok(user2)] = &mut signals else {
            tracing::error!("no signals can be received");
            return;
        };
        runtime.block_on(async {
            loop {
                let order = tokio::select! {
                    _ = terminate.recv() => Control::Drain,
                    _ = interrupt.recv() => Control::Kill,
                    _ = hangup.recv() => reload(&load, &notifier),
                    _ = user1.recv() => {
                        if let Err(error) = log.reopen() {
                            tracing::error!(%error, "the error log cannot be opened anew");
                        }
                        Control::ReopenLogs
                    }
                    _ = user2.recv() => Control::Replace,
                    () = orphans.release() => continue,
                };
                // The server is gone: the process is about to end.
                if control.send(order).is_err() {
                    return;
                }
            }
        });
    })?;
    Ok(())
}

/// Says in the log what in a configuration will surprise, a line each.
fn warn_of(warnings: Warnings) {
    for warning in warnings.summaries() {
        tracing::warn!("{warning}");
    }
}

/// Checks the configuration first; if it is wrong the old one stays.
fn reload(load: &impl Load, notifier: &Notifier) -> Control {
    notifier.reloading();
    match load() {
        Ok(mut config) => {
            warn_of(std::mem::take(&mut config.warnings));
            Control::Reload(Box::new(config))
        }
        Err(mistakes) => {
            tracing::error!("reload refused, the old configuration stays: {}", mistakes.summary());
            Control::ReloadRefused
        }
    }
}
