//! Lines as the journal of systemd wants them: each with its priority, sd-daemon(3), and without what it adds itself.

use std::fmt;
use std::io;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, format};
use tracing_subscriber::registry::LookupSpan;

/// Writes a priority, and the event without time and level, which the journal has in fields of their own.
#[derive(Debug)]
pub struct JournalFormat(Format<Full, ()>);

impl JournalFormat {
    /// Without colours.
    pub fn new() -> Self {
        Self(format().without_time().with_level(false).with_target(false).with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for JournalFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        let priority = priority(event.metadata().level());
        // To the journal each line is a message.
        text.lines().try_for_each(|line| writeln!(out, "<{priority}>{line}"))
    }
}

/// Those of syslog(3).
fn priority(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Whether standard error goes to the journal: systemd.exec(5), `JOURNAL_STREAM`. It may have been redirected since the
/// variable was set, so it has to be that very stream.
pub fn is_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let found = rustix::fs::fstat(io::stderr());
    found.is_ok_and(|found| stream == format!("{}:{}", found.st_dev, found.st_ino))
}
