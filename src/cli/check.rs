//! `hopgate check`: says every mistake of a configuration, or that there is none, and what will surprise.

use std::io::Write;
use std::path::Path;

use super::{CheckArgs, EXIT_DONE, colored, file_or_default, report};
use crate::config::Config;

/// Checks the file, says what came out, and returns the exit code.
pub fn check(arguments: &CheckArgs) -> u8 {
    let path = file_or_default(arguments.config.as_deref());
    match Config::load(path) {
        Ok(config) => match config.warnings.clone().into_errors().filter(|_| arguments.strict) {
            Some(errors) => report(&errors),
            None => {
                // Nobody may be listening: the exit code says it all.
                let _ = write!(std::io::stderr(), "{}", config.warnings.render(colored()));
                let _ = writeln!(std::io::stdout(), "{}", summary(path, &config));
                EXIT_DONE
            }
        },
        Err(errors) => report(&errors),
    }
}

/// `hopgate.toml: 2 servers, 5 locations, 1 upstream: fine, 1 warning`
fn summary(path: &Path, config: &Config) -> String {
    let locations = config.servers.iter().map(|server| server.outer()).sum();
    let parts = [
        count(config.servers.len(), "server"),
        count(locations, "location"),
        count(config.upstreams.len(), "upstream"),
    ];
    let warnings = match config.warnings.len() {
        0 => String::new(),
        number => format!(", {}", count(number, "warning")),
    };
    format!("{}: {}: fine{warnings}", path.display(), parts.join(", "))
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_what_there_is() {
        let text = "[[server]]\nlisten = 80\n[[server.location]]\npath = '/'\nproxy_pass = 'http://a.b'\n\
                    [[server.location]]\npath = '/b'\nproxy_pass = 'http://a.b'\n";
        let config = Config::parse("a.toml", text).unwrap();
        assert_eq!(summary(Path::new("a.toml"), &config), "a.toml: 1 server, 2 locations, 1 upstream: fine");
        let config = Config::parse("a.toml", &text.replace("'/b'", "'/a//b'")).unwrap();
        assert!(summary(Path::new("a.toml"), &config).ends_with(", 1 upstream: fine, 1 warning"));
    }
}
