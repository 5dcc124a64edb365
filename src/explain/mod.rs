//! Says what would become of a request: which server, which location, which steps and which upstream, and the head
//! that it would get. It is found out by the code that serves requests; nothing is sent, bound or resolved.

mod guards;
mod handshake;
mod json;
mod listener;
mod question;
mod search;
mod setting;
mod text;
mod upstream;
mod walk;

use std::sync::Arc;

use crate::acme::served::Served;
use crate::config::{Config, Places};
use crate::error::{ProxyError, reason};
use crate::http1::head::{self, HeadError, HeadLimits, Progress, RequestHead};
use crate::state::State;
use crate::tls::server::TlsServers;

pub use handshake::{Certificate, Handshake};
pub use question::{Asked, GivenField, Question, Scheme, Url};
pub use search::{Candidate, Outcome, Search};
pub use setting::Setting;
pub use upstream::{Sent, Upstream, UpstreamServer};

/// What would become of a request.
#[derive(Debug)]
pub struct Explanation {
    /// The name of the configuration's file. Lines are lines of it.
    pub file: String,
    /// The request.
    pub asked: Asked,
    /// What else is worth knowing about the question.
    pub notes: Vec<String>,
    /// The address where it arrives.
    pub listener: String,
    /// The handshake of TLS before it; `None`: there is none.
    pub tls: Option<Handshake>,
    /// The server that answers; the default one if the head could not be read.
    pub server: Server,
    /// What happened, in its order.
    pub steps: Vec<Step>,
    /// The location that it came to; `None`: none has the path.
    pub location: Option<Named>,
    /// What becomes of its wish for another protocol; `None` if it has none.
    pub upgrade: Option<Upgrade>,
    /// How long things may take on this way.
    pub timeouts: Vec<Setting>,
    /// The answer.
    pub end: End,
}

/// Something of the configuration, with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What it is called there.
    pub name: String,
    /// Its line.
    pub line: Option<usize>,
}

/// The server that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its first name, if it has one.
    pub named: Named,
    /// Why it is this one.
    pub why: String,
}

/// Something that happened on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The steps of a location began, or those of the server.
    Script(Option<Named>),
    /// `set`
    Set {
        /// The variable, without its `$`.
        name: String,
        /// Its value.
        value: String,
    },
    /// The condition of an `if`.
    If {
        /// As it is written.
        text: String,
        /// Whether it holds.
        holds: bool,
    },
    /// `rewrite`
    Rewrite {
        /// As it is written.
        text: String,
        /// What it had to do with.
        from: String,
        /// What it made of that; `None`: it does not match.
        to: Option<String>,
    },
    /// `break`
    Break,
    /// `return`, or the redirect of a `rewrite`.
    Return(String),
    /// The search of a location.
    Search(Search),
    /// On to a named location.
    Goto(Named),
    /// Something that a request has to pass.
    Guard {
        /// The key that sets it.
        key: &'static str,
        /// What it says, or would be asked.
        text: String,
        /// Whether it lets the request pass; `None`: that is only known when it is asked.
        passes: Option<bool>,
        /// The line of the key.
        line: Option<usize>,
    },
    /// Files are looked for.
    Files(Named),
    /// A file or a directory was looked for on this machine.
    Looked {
        /// Its path.
        path: String,
        /// Whether it is there, and of the kind that is wanted.
        is_there: bool,
    },
    /// The request asks for another protocol.
    Upgrade(Upgrade),
    /// An error has an `error_page`.
    ErrorPage {
        /// The error.
        error: Failure,
        /// What is answered instead.
        to: String,
        /// The line of the `error_page`.
        line: Option<usize>,
    },
}

/// What becomes of the wish for another protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The value of `Upgrade`.
    pub protocol: String,
    /// Whether it is put to the upstream.
    pub is_passed: bool,
    /// Why.
    pub why: String,
}

/// An error, as the log tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its status.
    pub status: u16,
    /// The words of the log.
    pub why: String,
}

/// Where the answer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// There is none: the handshake of TLS is refused.
    Refused,
    /// From an upstream.
    Upstream(Box<Upstream>),
    /// From hopgate.
    Reply {
        /// Its status.
        status: u16,
        /// Its fields, without those that every answer has.
        fields: Vec<(String, String)>,
        /// Its body; `None`: it is the content of a file.
        body: Option<String>,
        /// The bytes of its body.
        length: u64,
    },
    /// It is an error.
    Failure {
        /// Which one.
        failure: Failure,
        /// The fields of the answer, without those that every answer has.
        fields: Vec<(String, String)>,
    },
}

impl Explanation {
    /// For one request.
    pub fn of(question: &Question, config: Config, places: &Places) -> Self {
        // `$request_id` is the same for the same question.
        fastrand::seed(0);
        let asked = question.head();
        // These fail only if the system has no random numbers.
        let served = config.acme.as_ref().and_then(|acme| Served::supposed(acme).ok()).unwrap_or_default();
        let tls = TlsServers::new(&config, &served, None).unwrap_or_default();
        let state = Arc::new(State::new(config, tls, None));
        let arrival = listener::arrival(&state, places, question);
        let notes = arrival.notes;
        if let Some(tls) = arrival.tls.as_ref().filter(|tls| tls.certificates.is_empty()) {
            return Self::refused(places, asked, notes, tls.clone(), &arrival.client);
        }
        let head = read(&asked.head, &state, &arrival.client);
        let walk = walk::Walk::new(&state, places, &arrival.client, &asked);
        let walked = walk.through(head);
        Self {
            file: places.file().to_owned(),
            notes,
            listener: arrival.client.listener.to_string(),
            tls: arrival.tls,
            server: walked.server,
            steps: walked.steps,
            location: walked.location,
            upgrade: walked.upgrade,
            timeouts: walked.timeouts,
            end: walked.end,
            asked,
        }
    }

    /// Of a connection that ends before there is a request.
    fn refused(
        places: &Places,
        asked: Asked,
        notes: Vec<String>,
        tls: Handshake,
        client: &crate::client::ClientInfo,
    ) -> Self {
        Self {
            file: places.file().to_owned(),
            asked,
            notes,
            listener: client.listener.to_string(),
            server: Server { named: tls.server.clone(), why: tls.why.clone() },
            tls: Some(tls),
            steps: Vec::new(),
            location: None,
            upgrade: None,
            timeouts: Vec::new(),
            end: End::Refused,
        }
    }

    /// The status that the client gets; `None`: the upstream chooses it, or there is none.
    pub fn status(&self) -> Option<u16> {
        match &self.end {
            End::Upstream(_) | End::Refused => None,
            End::Reply { status, .. } => Some(*status),
            End::Failure { failure, .. } => Some(failure.status),
        }
    }

    /// Whether the request would be answered, with something else than an error.
    pub fn is_served(&self) -> bool {
        self.end != End::Refused && self.status().is_none_or(|status| status < 400)
    }

    /// For a person at a terminal, with colours if it takes them.
    pub fn text(&self, is_colored: bool) -> String {
        text::text(self, is_colored)
    }

    /// For a program: one JSON object, as docs/configuration.md describes it.
    pub fn json(&self) -> String {
        json::json(self)
    }
}

/// Reads the head as a connection does, within the limits of the default server.
fn read(bytes: &[u8], state: &State, client: &crate::client::ClientInfo) -> Result<RequestHead, ProxyError> {
    let limits = state.default_server(&client.listener).map(|server| &server.limits);
    let limits = limits.map_or(HeadLimits { size: bytes.len(), fields: head::MAX_FIELDS }, |limits| {
        HeadLimits { size: limits.head_size, fields: limits.max_headers }
    });
    match head::request(bytes, 0, limits)? {
        Progress::Whole(head, _) => Ok(head),
        Progress::Partial(_) => Err(ProxyError::Head(HeadError::Syntax)),
    }
}

impl Failure {
    fn of(error: &ProxyError) -> Self {
        Self { status: error.status(), why: error.in_full() }
    }

    /// The status with its phrase.
    fn title(status: u16) -> String {
        match status {
            444 => "444, nginx's own: the connection ends without an answer".to_owned(),
            _ => format!("{status} {}", reason(status)),
        }
    }
}

/// Bytes of a request, or of what was made of them, as a text without control characters.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c.is_control() {
                true => text.extend(c.escape_default()),
                false => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}
