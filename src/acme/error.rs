//! How it can fail to get a certificate, in words that say what to look at.

use std::error::Error;
use std::fmt;

use instant_acme::Problem;

use super::challenges::Kind;
use super::http::Unanswered;
use super::schedule::Trouble;
use super::store::StoreError;

/// Why there is no certificate.
#[derive(Debug)]
pub enum Failure {
    /// The store cannot be used.
    Store(StoreError),
    /// The CA cannot be reached, or does not speak ACME.
    Directory(instant_acme::Error),
    /// It said no.
    Refused(Problem),
    /// It does not take this challenge.
    NoChallenge(String, Kind),
    /// It has looked, and has not found what it looked for.
    Unproven(String, Kind, Option<Problem>),
    /// It took too long over this.
    Slow(&'static str),
    /// What it needs for the order cannot be made here.
    Unmade(String),
    /// What it issued cannot be used.
    Unusable(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<instant_acme::Error> for Failure {
    fn from(error: instant_acme::Error) -> Self {
        match error {
            instant_acme::Error::Api(problem) => Self::Refused(problem),
            instant_acme::Error::Timeout(_) => Self::Slow("it did not come to an end with the order"),
            error => Self::Directory(error),
        }
    }
}

impl Failure {
    /// How long to wait for the next attempt.
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Store(_) | Self::Directory(_) | Self::Slow(_) => Trouble::Passing,
            // RFC 8555 §6.7: its own fault.
            Self::Refused(problem) if is(problem, "serverInternal") => Trouble::Passing,
            Self::Refused(_)
            | Self::NoChallenge(..)
            | Self::Unproven(..)
            | Self::Unmade(_)
            | Self::Unusable(_) => Trouble::Refused,
        }
    }

    /// Whether another challenge may work where this one did not.
    pub fn is_about_challenge(&self) -> bool {
        matches!(self, Self::NoChallenge(..) | Self::Unproven(..))
    }

    /// Whether the CA does not know the account any more (RFC 8555 §6.7).
    pub fn is_unknown_account(&self) -> bool {
        matches!(self, Self::Refused(problem) if is(problem, "accountDoesNotExist"))
    }

    /// What the operator can look at; may be empty.
    pub fn advice(&self) -> String {
        match self {
            Self::Store(_) => "hopgate must be able to write the `store` of `[acme]`".into(),
            Self::Directory(error) => directory_advice(error).into(),
            Self::Refused(problem) if is(problem, "invalidContact") || is(problem, "unsupportedContact") => {
                "change `contact` of `[acme]`".into()
            }
            Self::Refused(problem) if is(problem, "rejectedIdentifier") => {
                "it does not issue for that name: take it out of `server_name`, or give the server `ssl_certificate`".into()
            }
            Self::Refused(problem) if is(problem, "rateLimited") => {
                "it counts orders and failures of each name: see its page about rate limits".into()
            }
            Self::Refused(problem) if is(problem, "userActionRequired") => {
                "it wants something to be agreed to: see its words above".into()
            }
            Self::Refused(problem) if is(problem, "externalAccountRequired") => {
                "it takes only accounts that were made with it before; use another CA".into()
            }
            Self::Refused(_) | Self::Slow(_) | Self::Unmade(_) | Self::Unusable(_) => String::new(),
            Self::NoChallenge(..) => "listen on port 80 without `ssl`, or on port 443 with it".into(),
            Self::Unproven(name, kind, problem) => unproven_advice(name, *kind, problem.as_ref()),
        }
    }
}

fn directory_advice(error: &instant_acme::Error) -> &'static str {
    match error {
        instant_acme::Error::Json(_) => "is that the whole URL in `directory`?",
        instant_acme::Error::Other(error)
            if error.downcast_ref::<Unanswered>().is_some_and(Unanswered::is_about_certificate) =>
        {
            "a CA of your own needs `directory_ca`: the file with what its server's certificate is checked with"
        }
        _ => "is `directory` right, and may hopgate connect to it?",
    }
}

fn unproven_advice(name: &str, kind: Kind, problem: Option<&Problem>) -> String {
    let port = kind.port();
    let is = |error| problem.is_some_and(|problem| is(problem, error));
    if is("dns") {
        return format!("is there an A or AAAA record for {name} in the DNS?");
    }
    if is("caa") {
        return format!("a CAA record of {name} in the DNS forbids this CA");
    }
    let answers = match kind {
        Kind::Http01 => "does something in front of hopgate answer /.well-known/acme-challenge/ itself?",
        Kind::TlsAlpn01 => "does something in front of hopgate end TLS itself?",
    };
    if is("unauthorized") || is("tls") {
        return format!("does the DNS lead {name} to this machine, and {answers}");
    }
    format!(
        "does the DNS lead {name} to this machine (its AAAA record, too), and can port {port} of it be reached from \
         outside, through every firewall?"
    )
}

/// RFC 8555 §6.7: the types of errors are URNs.
fn is(problem: &Problem, error: &str) -> bool {
    let urn = problem.r#type.as_deref().unwrap_or_default();
    urn.strip_prefix("urn:ietf:params:acme:error:") == Some(error)
}

/// Whether an order failed for the certificate that it is said to replace (RFC 9773 §5): the CA has no such thing or
/// leaves the field out of its answer, which is what instant-acme finds itself, or has replaced that one already.
pub(super) fn is_about_replacement(error: &instant_acme::Error) -> bool {
    match error {
        instant_acme::Error::Unsupported(_) => true,
        instant_acme::Error::Other(error) => !error.is::<Unanswered>(),
        instant_acme::Error::Api(problem) => is(problem, "alreadyReplaced"),
        _ => false,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "the store cannot be used: {error}"),
            Self::Directory(instant_acme::Error::Json(error)) => {
                write!(f, "what is at `directory` does not speak ACME: {error}")
            }
            Self::Directory(error) => {
                f.write_str("the directory of the CA cannot be used: ")?;
                with_causes(f, error)
            }
            Self::Refused(problem) => write!(f, "the CA refuses: {}", words(problem)),
            Self::NoChallenge(name, kind) => {
                write!(f, "the CA does not take {} as a proof for {name}", kind.name())
            }
            Self::Unproven(name, kind, problem) => {
                write!(
                    f,
                    "the CA has not found the proof for {name} by {} (port {})",
                    kind.name(),
                    kind.port()
                )?;
                problem.as_ref().map_or(Ok(()), |problem| write!(f, ": {}", words(problem)))
            }
            Self::Slow(what) => write!(f, "the CA took too long: {what}"),
            Self::Unmade(why) => f.write_str(why),
            Self::Unusable(why) => write!(f, "what the CA issued cannot be used: {why}"),
        }
    }
}

/// Every level of an error, unless it repeats the one above.
fn with_causes(f: &mut fmt::Formatter<'_>, error: &dyn Error) -> fmt::Result {
    let mut last = error.to_string();
    f.write_str(&last)?;
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !last.contains(&text) {
            write!(f, ": {text}")?;
        }
        last = text;
        cause = error.source();
    }
    Ok(())
}

/// What a CA says, with what it says of single names.
fn words(problem: &Problem) -> String {
    let of = |detail: &Option<String>, name: &Option<String>| {
        detail.clone().or_else(|| name.clone()).unwrap_or_else(|| "without a reason".into())
    };
    let mut words = of(&problem.detail, &problem.r#type);
    for part in &problem.subproblems {
        words.push_str("; ");
        words.push_str(&of(&part.detail, &part.r#type));
    }
    // It goes into a line of the log, and it is from outside.
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}
