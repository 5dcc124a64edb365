//! The command line: one file a command.

pub mod check;
pub mod completions;
pub mod demo;
pub mod env;
pub mod explain;
pub mod health;
pub mod import;
pub mod man;
mod orphans;
pub mod run;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::units::{self, Wrong};
use crate::config::{Config, ConfigErrors, ListenAddress};
use crate::explain::{GivenField, Url};
use crate::headers::is_token_byte;

/// The file that is read if none is named.
pub const DEFAULT_FILE: &str = "/etc/hopgate/hopgate.toml";

/// Done.
pub const EXIT_DONE: u8 = 0;
/// The configuration or the request is at fault.
pub const EXIT_CONFIG: u8 = 1;
/// Wrong usage: clap leaves with it by itself.
pub const EXIT_USAGE: u8 = 2;
/// A bug, `EX_SOFTWARE` of sysexits(3).
pub const EXIT_BUG: u8 = 70;

const AFTER_HELP: &str = "\
Examples:
  hopgate demo                                        see it work, in the browser
  hopgate run --upstream http://127.0.0.1:3000        in front of an app, without a file
  hopgate check --config hopgate.toml                 every mistake of a file, with its line
  hopgate explain --config hopgate.toml ws://a.b/ws   what would become of a request, and why
  hopgate import /etc/nginx/nginx.conf                what nginx does, in hopgate's language
  hopgate run --config hopgate.toml                   serve what the file says
  hopgate health                                      ask a running one whether it is well

Exit codes:
  0   done
  1   the configuration or the request is at fault
  2   wrong usage
  70  a bug in hopgate

`hopgate COMMAND --help` says more about a command.";

/// A WebSocket-aware reverse proxy.
///
/// Configured in TOML with nginx's words. Every WebSocket handshake on a proxied location is
/// tunnelled, with nothing to configure; everything else is forwarded as HTTP.
#[derive(Debug, Parser)]
#[command(name = "hopgate", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the arguments of the process, or leaves it and says what is wrong with them.
    pub fn parse_or_exit() -> Self {
        Self::try_read(std::env::args_os(), |name| std::env::var_os(name)).unwrap_or_else(|mut error| {
            let file = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::String(text)) if text.ends_with(".toml") => {
                    Some(format!("--config {text}"))
                }
                _ => None,
            };
            if let Some(option) = file.filter(|_| error.kind() == ErrorKind::UnknownArgument) {
                let tip = format!("a configuration is named with `{option}`").into();
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
            }
            error.exit()
        })
    }

    /// Reads arguments, and of the environment what they leave open.
    fn try_read(
        arguments: impl IntoIterator<Item: Into<OsString> + Clone>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, clap::Error> {
        let mut cli = Self::try_parse_from(arguments)?;
        env::fill(&mut cli.command, variable)?;
        Ok(cli)
    }
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve what a file says, or one upstream without a file
    ///
    /// SIGTERM drains, once `shutdown_delay` is over: no new connections; requests may finish within `shutdown_timeout`; tunnels are
    /// ended in good order, each at a moment of its own within the first third of it, so that their
    /// clients do not all come back in the same instant. A second SIGTERM, or SIGINT, ends at once.
    /// SIGHUP reads the file again, SIGUSR1 opens log files anew. SIGUSR2 starts the program anew, which takes the
    /// listening sockets over once it is ready; then this process drains.
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Say every mistake of a configuration, or that there is none
    ///
    /// Nothing is bound, opened or sent. Mistakes go to standard error, each with its file, line and
    /// column, the line itself, and what would be right. So do warnings: about what is not wrong, but will
    /// surprise.
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Ask a running hopgate whether it is well
    ///
    /// Sends `GET /healthz` to the first address of `[health]` in the configuration: are all workers alive? It is
    /// meant for probes in images that have no other program, such as Docker's HEALTHCHECK.
    #[command(after_help = HEALTH_HELP)]
    Health(HealthArgs),
    /// Say what would become of a request, and why
    ///
    /// Which server and which location, what the steps of the configuration do, which upstream, the
    /// timeouts in force with the lines that set them, and the head that the upstream would get. Found out
    /// on the configuration alone: nothing is sent, bound or looked up in DNS.
    #[command(after_help = EXPLAIN_HELP)]
    Explain(ExplainArgs),
    /// Say an nginx configuration in hopgate's language
    ///
    /// The result goes to standard output, and is a valid configuration. What could not be carried over
    /// is told on standard error, a line each: file, line, directive, why not, and what to do. So is, once
    /// each, what hopgate makes needless. What guards access and cannot be carried over refuses.
    #[command(after_help = IMPORT_HELP)]
    Import(ImportArgs),
    /// Show a page with a WebSocket and an event stream, behind the proxy
    ///
    /// Starts a small app on a free port of this machine and hopgate before it, and prints the URL to
    /// open in a browser.
    #[command(after_help = DEMO_HELP)]
    Demo(DemoArgs),
    /// Print what has a shell complete hopgate's arguments
    #[command(after_help = COMPLETIONS_HELP)]
    Completions(CompletionsArgs),
    /// Print the manual page of hopgate, or of one of its commands
    ///
    /// In the language of man(1), which shows it. The Debian package has the pages in place.
    #[command(after_help = MAN_HELP)]
    Man(ManArgs),
}

const RUN_HELP: &str = "\
Examples:
  hopgate run --config /etc/hopgate/hopgate.toml
  hopgate run --upstream http://127.0.0.1:3000
  hopgate run --listen 8080 --listen '[::]:8080' --upstream http://app:3000
  hopgate run --listen unix:/run/hopgate.sock --upstream http://unix:/run/app.sock --workers 2

Environment:
  HOPGATE_CONFIG     in place of --config; a flag wins, and an empty variable counts as unset
  HOPGATE_UPSTREAM   in place of --upstream
  HOPGATE_LISTEN     in place of --listen, several separated by commas or spaces
  HOPGATE_HEALTH     in place of --health, the same
  HOPGATE_WORKERS    in place of --workers
  RUST_LOG           the level of the error log, whatever the configuration says";

const HEALTH_HELP: &str = "\
Examples:
  hopgate health
  hopgate health --ready                 also: is it to be sent clients?
  hopgate health --url http://127.0.0.1:9180

Environment:
  HOPGATE_CONFIG     in place of --config
  HOPGATE_HEALTH     in place of --url, if there is no file

Exit codes:
  0   it has answered 200
  1   it has answered something else, or not at all";

const CHECK_HELP: &str = "\
Examples:
  hopgate check
  hopgate check --config hopgate.toml && systemctl reload hopgate
  hopgate check --strict                 warnings are mistakes";

const IMPORT_HELP: &str = "\
Examples:
  hopgate import /etc/nginx/nginx.conf --output hopgate.toml
  hopgate import site.conf                a `server` or a `location` alone, as articles have it

Exit codes:
  0   what was printed is a valid configuration
  2   the nginx file cannot be parsed";

const EXPLAIN_HELP: &str = "\
Examples:
  hopgate explain http://example.com/api/users
  hopgate explain ws://example.com/ws/chat               a WebSocket handshake, completed
  hopgate explain http://example.com/ -X POST -H 'Content-Length: 10' --from 192.0.2.7
  hopgate explain https://example.com/ --json | jq -r .upstream.head

Exit codes:
  0   an upstream would be asked, or hopgate would answer with a status below 400
  1   the answer would be an error, or the configuration is wrong";

const DEMO_HELP: &str = "\
Examples:
  hopgate demo
  hopgate demo --tls                     the same over https:// and wss://
  hopgate demo --listen 8080             reachable from other machines, too";

const COMPLETIONS_HELP: &str = "\
Examples:
  hopgate completions bash > ~/.local/share/bash-completion/completions/hopgate
  hopgate completions zsh > ~/.zfunc/_hopgate            with ~/.zfunc in fpath
  hopgate completions fish > ~/.config/fish/completions/hopgate.fish";

const MAN_HELP: &str = "\
Examples:
  hopgate man | man -l -
  hopgate man explain | man -l -
  hopgate man --output /usr/local/share/man/man1";

/// `hopgate run`
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// The configuration [default: /etc/hopgate/hopgate.toml]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "upstream", "health"])]
    pub config: Option<PathBuf>,
    /// Where to listen without a file, any number of times [default: 127.0.0.1:8080]
    ///
    /// `127.0.0.1:8080`, `[::]:8080`, `8080` (every IPv4 address), `unix:/path`, or `fd:NAME` for what systemd
    /// passes under that name. Port 0 is a free one. TLS takes a file.
    #[arg(long, value_name = "ADDR", value_parser = listen)]
    pub listen: Vec<ListenAddress>,
    /// Where all requests go without a file
    ///
    /// `http://HOST[:PORT][/PATH]`, the same with `https`, `http://unix:/path`, or `srv+http://NAME` for the servers
    /// that SRV records name.
    #[arg(long, value_name = "URL", value_parser = upstream)]
    pub upstream: Option<String>,
    /// How many workers, each with its own thread; instead of `workers` in the file
    #[arg(long, value_name = "N", value_parser = workers)]
    pub workers: Option<NonZeroUsize>,
    /// Where health checks are answered without a file, any number of times
    #[arg(long, value_name = "ADDR", value_parser = listen)]
    pub health: Vec<ListenAddress>,
    /// Where all this was said.
    #[arg(skip)]
    pub named: Named,
}

/// What a mistake in a configuration without a file is told of: the flag or the variable that it was said with.
#[derive(Clone, Debug)]
pub struct Named {
    listen: &'static str,
    upstream: &'static str,
    health: &'static str,
}

impl Default for Named {
    fn default() -> Self {
        Self { listen: "--listen", upstream: "--upstream", health: "--health" }
    }
}

/// `hopgate health`
#[derive(Args, Clone, Debug)]
pub struct HealthArgs {
    /// The configuration [default: /etc/hopgate/hopgate.toml]
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    pub config: Option<PathBuf>,
    /// Whether it is to be sent clients, too: not once it is told to stop
    #[arg(long)]
    pub ready: bool,
    /// Whom to ask instead of the address in the configuration
    ///
    /// `http://HOST[:PORT][/PATH]`, `http://unix:/path`, or an address as in `listen`.
    #[arg(long, value_name = "URL", value_parser = health::Target::parse)]
    pub url: Option<health::Target>,
    /// How long it may take to answer
    #[arg(long, value_name = "TIME", value_parser = patience, default_value = "3s")]
    pub timeout: Duration,
}

/// `hopgate check`
#[derive(Args, Clone, Debug, Default)]
pub struct CheckArgs {
    /// The configuration [default: /etc/hopgate/hopgate.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Whether warnings are mistakes
    ///
    /// A warning is about something that can be, but will surprise.
    #[arg(long)]
    pub strict: bool,
}

/// `hopgate import`
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// The nginx file; what it includes is looked for beside it, a folder above, and in /etc/nginx
    #[arg(value_name = "NGINX_CONF")]
    pub nginx_conf: PathBuf,
    /// Where the result goes, instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Where nginx's relative paths begin, as of `nginx -p` [default: /usr/share/nginx for a file in /etc/nginx, else beside the file]
    #[arg(short, long, value_name = "DIR")]
    pub prefix: Option<PathBuf>,
}

/// `hopgate explain`
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The configuration [default: /etc/hopgate/hopgate.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The method
    #[arg(short = 'X', long = "request", value_name = "METHOD", value_parser = method, default_value = "GET")]
    pub method: String,
    /// A field of the request, any number of times
    ///
    /// As with curl: `Name: value`, `Name;` for an empty value, `Name:` for a field that is not sent. With
    /// `Upgrade: websocket` and nothing else about the connection the handshake is completed.
    #[arg(short = 'H', long, value_name = "NAME: VALUE", value_parser = GivenField::parse)]
    pub header: Vec<GivenField>,
    /// The address that the request comes from
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub from: IpAddr,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
    /// Where the request goes: http, https, ws or wss
    #[arg(value_name = "URL", value_parser = Url::parse)]
    pub url: Url,
}

/// `hopgate demo`
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Where to listen [default: 127.0.0.1:8080, with --tls 127.0.0.1:8443]
    #[arg(long, value_name = "ADDR", value_parser = listen)]
    pub listen: Option<ListenAddress>,
    /// Speak TLS and HTTP/2, with a certificate that is made for the occasion
    #[arg(long)]
    pub tls: bool,
    /// How many workers, each with its own thread [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = workers)]
    pub workers: Option<NonZeroUsize>,
}

/// `hopgate completions`
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// `hopgate man`
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// One of hopgate's commands
    #[arg(value_name = "COMMAND", value_parser = PossibleValuesParser::new(man::COMMANDS))]
    pub command: Option<String>,
    /// Write all pages into this directory, instead of one to standard output
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub output: Option<PathBuf>,
}

impl DemoArgs {
    /// Where to listen, as said or as usual.
    pub fn listen(&self) -> ListenAddress {
        let port = if self.tls { 8443 } else { 8080 };
        self.listen.clone().unwrap_or_else(|| ListenAddress::Tcp((Ipv4Addr::LOCALHOST, port).into()))
    }
}

impl RunArgs {
    /// The configuration that these arguments ask for. It can be asked for again: that is a reload.
    ///
    /// # Errors
    /// The mistakes of the file, or of the flags.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        let config = match (&self.upstream, self.listen.as_slice()) {
            (Some(url), []) => Config::quick(&[default_listen()], url),
            (Some(url), listen) => Config::quick(listen, url),
            (None, _) => Config::load(file_or_default(self.config.as_deref())).map_err(|errors| {
                errors
                    .or("run without one: `hopgate run --upstream http://127.0.0.1:3000` (HOPGATE_UPSTREAM)")
            }),
        };
        let config = match self.health.as_slice() {
            [] => config,
            health => config.and_then(|config| config.with_health(health)),
        };
        let Named { listen, upstream, health } = self.named;
        let named = [("--listen", listen), ("--upstream", upstream), ("--health", health)];
        let mut config = config.map_err(|errors| errors.naming(&named))?;
        config.workers = self.workers.map(NonZeroUsize::get).or(config.workers);
        Ok(config)
    }
}

/// Prints mistakes to standard error, in colour if it is a terminal and `NO_COLOR` is not set
/// (<https://no-color.org>). Returns the exit code: flags that do not go together are wrong usage.
pub fn report(errors: &ConfigErrors) -> u8 {
    // Nobody may be listening: the exit code says it all.
    let _ = write!(std::io::stderr(), "{}", errors.render(colored()));
    if errors.are_of_flags() { EXIT_USAGE } else { EXIT_CONFIG }
}

/// Whether standard error takes colours.
fn colored() -> bool {
    wants_color() && std::io::stderr().is_terminal()
}

/// Unless `NO_COLOR` is set (<https://no-color.org>).
fn wants_color() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn file_or_default(named: Option<&Path>) -> &Path {
    named.unwrap_or(Path::new(DEFAULT_FILE))
}

fn default_listen() -> ListenAddress {
    ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)))
}

/// As in the file, but nobody quotes on the command line as in TOML.
fn listen(text: &str) -> Result<ListenAddress, Wrong> {
    if let Some((_, "ssl")) = text.rsplit_once(' ') {
        return Err(Wrong {
            message: "TLS needs a certificate, and that needs a file".to_owned(),
            help: Some(
                "write a configuration, as examples/tls has one, or try `hopgate demo --tls`".to_owned(),
            ),
        });
    }
    if let Some((_, words)) = text.split_once(' ') {
        let message = format!("`{words}` behind an address needs a file");
        return Err(Wrong {
            message,
            help: Some(format!("write a configuration with `listen = \"{text}\"`")),
        });
    }
    units::listen_address(text).map_err(Wrong::unquoted)
}

/// Only the URL by itself: whether it goes together with the addresses to listen on is found out when
/// all arguments are known.
fn upstream(url: &str) -> Result<String, Wrong> {
    let anywhere = ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    match Config::quick(&[anywhere], url) {
        Ok(_) => Ok(url.to_owned()),
        Err(errors) => {
            let first = errors.mistakes().first();
            let message = first.map(|mistake| mistake.message.trim_start_matches("--upstream: ").to_owned());
            let help = first.and_then(|mistake| mistake.help.clone());
            Err(Wrong { message: message.unwrap_or_default(), help })
        }
    }
}

/// RFC 9110 §9.1: a token.
fn method(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.bytes().all(is_token_byte) {
        true => Ok(text.to_owned()),
        false => Err("it is no method".to_owned()),
    }
}

/// As in the file, but 0 would never do.
fn patience(text: &str) -> Result<Duration, Wrong> {
    match units::time(text).map_err(Wrong::unquoted)? {
        Duration::ZERO => Err(Wrong { message: "nothing would ever be in time".to_owned(), help: None }),
        time => Ok(time),
    }
}

/// As in the file: from 1 to 1024.
fn workers(text: &str) -> Result<NonZeroUsize, Wrong> {
    let number = text.parse::<NonZeroUsize>().ok().filter(|number| number.get() <= 1024);
    number.ok_or_else(|| Wrong {
        message: format!("`{text}` is not a number from 1 to 1024"),
        help: (text == "auto").then(|| "leave it out for one for each processor".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn run(arguments: &str) -> Result<RunArgs, ErrorKind> {
        run_in(arguments, &[])
    }

    fn run_in(arguments: &str, variables: &[(&str, &str)]) -> Result<RunArgs, ErrorKind> {
        read(arguments, variables).map_err(|error| error.kind())
    }

    fn read(arguments: &str, variables: &[(&str, &str)]) -> Result<RunArgs, clap::Error> {
        let get = |name: &str| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into())
        };
        let arguments = ["hopgate", "run"].into_iter().chain(arguments.split_whitespace());
        match Cli::try_read(arguments, get) {
            Ok(Cli { command: Command::Run(run) }) => Ok(run),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        }
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_file_and_the_flags_for_running_without_one_exclude_each_other() {
        assert_eq!(
            run("--config a --listen 80 --upstream http://a").unwrap_err(),
            ErrorKind::ArgumentConflict
        );
        assert_eq!(run("--config a --upstream http://a").unwrap_err(), ErrorKind::ArgumentConflict);
        assert_eq!(run("--config a --listen 80").unwrap_err(), ErrorKind::ArgumentConflict);
        assert_eq!(run("--listen 80").unwrap_err(), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn the_environment_says_what_the_flags_leave_open() {
        let args = run_in(
            "",
            &[
                ("HOPGATE_UPSTREAM", "http://app "),
                ("HOPGATE_LISTEN", "8080, [::1]:8080 unix:/run/a"),
                ("HOPGATE_HEALTH", "9180"),
                ("HOPGATE_WORKERS", "3"),
            ],
        )
        .unwrap();
        assert_eq!(args.upstream.as_deref(), Some("http://app"));
        let listen: Vec<_> = args.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["0.0.0.0:8080", "[::1]:8080", "unix:/run/a"]);
        let config = args.load().unwrap();
        assert_eq!((config.workers, config.health.len()), (Some(3), 1));
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_is_no_conflict_with_it() {
        let image = [
            ("HOPGATE_CONFIG", "/etc/a.toml"),
            ("HOPGATE_LISTEN", "1"),
            ("HOPGATE_WORKERS", "2"),
            ("HOPGATE_HEALTH", "3"),
        ];
        let args = run_in("--upstream http://app --listen 80 --workers 5 --health 4", &image).unwrap();
        assert_eq!((args.config, args.upstream.as_deref()), (None, Some("http://app")));
        assert_eq!((args.listen.len(), args.listen[0].to_string()), (1, "0.0.0.0:80".to_owned()));
        assert_eq!((args.workers.unwrap().get(), args.health[0].to_string()), (5, "0.0.0.0:4".to_owned()));
        // A file says where to listen.
        let args = run_in("", &image).unwrap();
        assert_eq!((args.config, args.listen), (Some("/etc/a.toml".into()), Vec::new()));
        let args =
            run_in("--config b", &[("HOPGATE_UPSTREAM", "http://app"), ("HOPGATE_CONFIG", "a")]).unwrap();
        assert_eq!((args.config, args.upstream), (Some("b".into()), None));
        let args =
            run_in("--listen 80", &[("HOPGATE_UPSTREAM", "http://app"), ("HOPGATE_CONFIG", "a")]).unwrap();
        assert_eq!((args.config, args.upstream.as_deref()), (None, Some("http://app")));
    }

    #[test]
    fn a_mistake_in_the_environment_names_the_variable() {
        let told = |variables: &[(&str, &str)]| match read("", variables) {
            Err(error) => error.to_string(),
            Ok(args) => args.load().unwrap_err().to_string(),
        };
        let app = ("HOPGATE_UPSTREAM", "http://127.0.0.1:8080");
        for (variables, expected) in [
            (
                &[("HOPGATE_UPSTREAM", "foo")][..],
                "error: HOPGATE_UPSTREAM: `foo` is not a URL; write `http://foo`",
            ),
            (&[app, ("HOPGATE_LISTEN", "1, x:y")], "error: HOPGATE_LISTEN: "),
            (&[app, ("HOPGATE_WORKERS", "0")], "error: HOPGATE_WORKERS: `0` is not a number from 1 to 1024"),
            (
                &[app, ("HOPGATE_LISTEN", "1 1")],
                "error: HOPGATE_LISTEN: this server listens on 0.0.0.0:1 twice",
            ),
            (&[app], "error: HOPGATE_UPSTREAM: hopgate itself listens on 127.0.0.1:8080"),
            (
                &[app, ("HOPGATE_LISTEN", "1"), ("HOPGATE_HEALTH", "[::]:1 127.0.0.1:1")],
                "error: HOPGATE_HEALTH: a server listens on 0.0.0.0:1, so health checks cannot come to 127.0.0.1:1",
            ),
            (&[app, ("HOPGATE_CONFIG", "a")], "error: HOPGATE_CONFIG and HOPGATE_UPSTREAM are both set"),
        ] {
            let told = told(variables);
            assert!(told.starts_with(expected), "{variables:?}: {told}");
        }
    }

    #[test]
    fn what_is_set_to_nothing_is_not_set() {
        let empty = [
            ("HOPGATE_CONFIG", ""),
            ("HOPGATE_UPSTREAM", " "),
            ("HOPGATE_LISTEN", ""),
            ("HOPGATE_HEALTH", ","),
            ("HOPGATE_WORKERS", ""),
        ];
        let args = run_in("", &empty).unwrap();
        assert_eq!((args.config, args.upstream, args.workers), (None, None, None));
        let args = run_in("--upstream http://app", &empty).unwrap();
        assert!(args.listen.is_empty() && args.health.is_empty());
    }

    #[test]
    fn a_bad_address_and_a_bad_number_are_wrong_usage() {
        for arguments in [
            "--listen example.com:80 --upstream http://a",
            "--upstream foo",
            "--upstream wss://app",
            "--workers 0",
            "--workers 2000",
            "--workers x",
        ] {
            assert_eq!(run(arguments).unwrap_err(), ErrorKind::ValueValidation, "{arguments}");
        }
    }

    #[test]
    fn an_upstream_alone_is_served_on_port_8080_of_this_machine() {
        let config = run("--upstream http://app --workers 3").unwrap().load().unwrap();
        assert_eq!(config.listeners.len(), 1);
        assert_eq!(config.listeners[0].address, default_listen());
        assert_eq!(config.workers, Some(3));
        assert_eq!(config.upstreams[0].name, "app:80");
    }

    #[test]
    fn flags_that_do_not_go_together_name_the_flag() {
        let mistakes = |arguments: &str| run(arguments).unwrap().load().unwrap_err().to_string();
        let shown = mistakes("--listen 80 --listen *:80 --upstream http://app:1");
        assert!(shown.starts_with("error: --listen: this server listens on 0.0.0.0:80 twice"), "{shown}");
        let shown = mistakes("--upstream http://127.0.0.1:8080");
        assert_eq!(
            shown,
            "error: --upstream: hopgate itself listens on 127.0.0.1:8080: every request would come back to it\n\
             help: write the address of the app, or have hopgate listen elsewhere, as with `--listen 127.0.0.1:8081`"
        );
    }

    #[test]
    fn mistakes_of_the_flags_are_said_without_the_quotes_of_toml() {
        let shown = |arguments: &[&str]| Cli::try_parse_from(arguments).unwrap_err().to_string();
        let upstream = shown(&["hopgate", "run", "--upstream", "foo"]);
        assert!(
            upstream.contains("for '--upstream <URL>': `foo` is not a URL; write `http://foo`\n"),
            "{upstream}"
        );
        let listen = shown(&["hopgate", "demo", "--listen", "::1"]);
        assert!(listen.contains("write it in brackets: `[::1]:8080`\n"), "{listen}");
        let listen = shown(&["hopgate", "demo", "--listen", "http://127.0.0.1:80"]);
        assert!(listen.contains("leave `http://` out: `127.0.0.1:80`\n"), "{listen}");
    }

    #[test]
    fn help_is_a_command_too() {
        for arguments in [&["hopgate", "help"][..], &["hopgate", "help", "run"]] {
            assert_eq!(Cli::try_parse_from(arguments).unwrap_err().kind(), ErrorKind::DisplayHelp);
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_said_kindly() {
        let errors = run("--config /no/such/file.toml").unwrap().load().unwrap_err().to_string();
        assert!(errors.starts_with("error: cannot read /no/such/file.toml: No such file"), "{errors}");
        assert!(errors.contains("hopgate run --upstream http://127.0.0.1:3000"), "{errors}");
    }
}
