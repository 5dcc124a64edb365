//! Takes a request along the way that `proxy` takes it, up to the point where something would be sent.

use std::sync::Arc;

use tokio::time::Instant;

use super::handshake;
use super::search::Searching;
use super::setting::{self, Kind, Scope, Setting};
use super::upstream::{self, Sent, Upstream};
use super::{Asked, End, Failure, Named, Server, Step, shown};
use crate::client::ClientInfo;
use crate::config::{Content, FileRoot, Places, UpstreamVersion};
use crate::error::ProxyError;
use crate::exchange::{ErrorWay, Exchange, Subject, Way};
use crate::files::{self, Served as Filed};
use crate::forward::{self, Prepared};
use crate::headers::fields::Known;
use crate::http1::head::RequestHead;
use crate::proxy;
use crate::reply::{Reply, ReplyBody};
use crate::routing::course::Event;
use crate::routing::host::Claim;
use crate::routing::route::Verdict;
use crate::routing::script::Answer;
use crate::routing::values::verbatim;
use crate::state::State;
use crate::upgrade::{self, Intent};
use crate::upstream::choice::Choice;

/// One request on its way.
pub(super) struct Walk<'a> {
    pub(super) state: &'a Arc<State>,
    places: &'a Places,
    pub(super) client: &'a ClientInfo,
    asked: &'a Asked,
    pub(super) steps: Vec<Step>,
    /// How many events are among the steps.
    told: usize,
    searching: Option<Searching>,
    /// Path and query as they are now.
    target: String,
    upgrade: Option<super::Upgrade>,
}

/// What came of it.
pub(super) struct Walked {
    pub(super) server: Server,
    pub(super) steps: Vec<Step>,
    pub(super) location: Option<Named>,
    pub(super) upgrade: Option<super::Upgrade>,
    pub(super) timeouts: Vec<Setting>,
    pub(super) end: End,
}

/// What a part of the way came to.
enum Served {
    /// The answer.
    End(End),
    /// A further part.
    Elsewhere(Way),
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        state: &'a Arc<State>,
        places: &'a Places,
        client: &'a ClientInfo,
        asked: &'a Asked,
    ) -> Self {
        Self {
            state,
            places,
            client,
            asked,
            steps: Vec::new(),
            told: 0,
            searching: None,
            target: String::new(),
            upgrade: None,
        }
    }

    /// Takes the request to its end, as `proxy::handle` does.
    pub(super) fn through(mut self, head: Result<RequestHead, ProxyError>) -> Walked {
        let started = Instant::now();
        let found = match head {
            Ok(head) => proxy::found(Arc::clone(self.state), self.client, head, started),
            Err(error) => {
                let server = self.state.server_for(&self.client.listener, "").unwrap_or(0);
                let state = Arc::clone(self.state);
                let exchange = Exchange::new(state, server, Subject::Nothing, self.client, started);
                Err((Box::new(exchange), error))
            }
        };
        let (mut exchange, refused) = match found {
            Ok(exchange) => (exchange, None),
            Err((exchange, error)) => (exchange, Some(error)),
        };
        exchange.trace();
        if let Some(request) = exchange.checked() {
            self.target = target(request.path(), request.query().unwrap_or_default());
            exchange.capture_host(self.client);
        }
        let end = self.follow(&mut exchange, refused);
        self.walked(&exchange, end)
    }

    fn follow(&mut self, exchange: &mut Exchange, mut refused: Option<ProxyError>) -> End {
        let mut way = Way::Start;
        loop {
            let served = match refused.take() {
                Some(error) => Err(error),
                None => self.part(exchange, way),
            };
            let error = match served {
                Ok(Served::End(end)) => return end,
                Ok(Served::Elsewhere(next)) => {
                    way = next;
                    continue;
                }
                Err(error) => error,
            };
            let line = self.line_of(exchange, "error_page");
            let page = exchange.error_page(self.client, &error);
            let failure = Failure::of(&error);
            let Some(page) = page else { return self.failure(exchange, &error) };
            let to = match &page {
                ErrorWay::On(Way::Named(name)) => name.clone(),
                ErrorWay::On(Way::Path(path) | Way::Index(path)) => shown(path),
                ErrorWay::On(Way::Start) => String::new(),
                ErrorWay::Redirect(status, to) => format!("{status} {}", shown(to)),
            };
            self.steps.push(Step::ErrorPage { error: failure, to, line });
            match page {
                ErrorWay::On(next) => way = next,
                ErrorWay::Redirect(status, to) => return self.reply(exchange, Reply::redirect(status, to)),
            }
        }
    }

    /// One part of the way, as `proxy` takes it.
    fn part(&mut self, exchange: &mut Exchange, way: Way) -> Result<Served, ProxyError> {
        let verdict = exchange.take(self.client, way);
        self.tell(exchange);
        let served = self.served(exchange, verdict);
        self.tell(exchange);
        served
    }

    /// What is done in the location, as `proxy` does it.
    fn served(&mut self, exchange: &mut Exchange, verdict: Verdict) -> Result<Served, ProxyError> {
        if let Some(reply) = Reply::of_verdict(verdict, exchange, self.client)? {
            return Ok(Served::End(self.reply(exchange, reply)));
        }
        self.guarded(exchange)?;
        let files = exchange.location().files.try_files.is_some();
        self.steps.extend(files.then(|| self.files(exchange, "try_files")));
        let filed = match files::tried(exchange, self.client)? {
            Some(filed) => filed,
            None => {
                self.tell(exchange);
                match exchange.location().content {
                    Content::Proxy(_) => return self.proxied(exchange).map(Served::End),
                    Content::Files => {
                        let is_alias = matches!(exchange.location().files.root, Some(FileRoot::Alias { .. }));
                        self.steps.push(self.files(exchange, if is_alias { "alias" } else { "root" }));
                        files::serve(exchange, self.client)?
                    }
                    Content::Nothing => return Err(ProxyError::NoLocation),
                }
            }
        };
        Ok(match filed {
            Filed::Elsewhere(way) => Served::Elsewhere(way),
            Filed::Reply(reply) => Served::End(self.reply(exchange, reply)),
        })
    }

    /// The key by which files are looked for.
    fn files(&self, exchange: &Exchange, key: &str) -> Step {
        Step::Files(Named { name: key.to_owned(), line: self.line_of(exchange, key) })
    }

    fn proxied(&mut self, exchange: &mut Exchange) -> Result<End, ProxyError> {
        let intent = proxy::intent(exchange);
        self.upgrade = wish(exchange, &intent);
        self.steps.extend(self.upgrade.clone().map(Step::Upgrade));
        let protocol = match intent? {
            Intent::Forward => None,
            Intent::Upgrade(upgrade) => Some(upgrade.protocol().to_vec()),
        };
        let Prepared { group, secured, header, key, head, .. } =
            forward::prepare(self.client, exchange, protocol.as_deref())?;
        let location = exchange.location();
        let head = upstream::as_sent(head, location.http_version, secured.is_some());
        let next = location.next_upstream;
        let mut choice = Choice::new(&group, key.clone(), next.tries);
        let chosen = choice.choose(Instant::now()).ok_or(ProxyError::NoLiveServer)?.index();
        let values = exchange.values(self.client);
        let examples = upstream::examples(&self.state.config, exchange.server(), location, &self.asked.added);
        let (named, method, servers) = upstream::group(&group.upstream, &key, chosen, self.places);
        let error_pages = location.error_pages.iter().filter_map(|page| {
            let mut to = Vec::new();
            page.to.write(&mut to, &values, verbatim);
            // Without `proxy_intercept_errors` those that hopgate itself makes of an upstream's failure.
            let is_own = |status: &u16| location.intercept_errors || matches!(status, 502 | 504);
            let applies = |status: &&u16| is_own(status) && exchange.has_error_page(**status);
            let statuses: Vec<u16> = page.statuses.iter().filter(applies).copied().collect();
            (!statuses.is_empty()).then(|| (statuses, shown(&to)))
        });
        Ok(End::Upstream(Box::new(Upstream {
            named,
            is_http2: location.http_version == UpstreamVersion::Http2,
            version_line: self.line_of(exchange, "proxy_http_version"),
            pass_line: self.places.own(exchange.server_place(), exchange.location_place(), "proxy_pass"),
            header: header.map(|header| header.to_string()),
            header_line: self.line_of(exchange, "proxy_protocol"),
            tls: secured.map(|secured| upstream::tls(&secured, |key| self.line_of(exchange, key))),
            method,
            servers,
            next: if choice.tries() > 1 { upstream::next_cases(next.cases) } else { Vec::new() },
            next_line: self.line_of(exchange, "proxy_next_upstream"),
            sent: Sent { head, examples },
            error_pages: error_pages.collect(),
            error_page_line: self.line_of(exchange, "error_page"),
        })))
    }

    /// An answer of hopgate's own, as `reply::send` would send it.
    fn reply(&self, exchange: &Exchange, reply: Reply) -> End {
        let status = match reply.body {
            // What it is a page for was thought of when the file was looked at.
            ReplyBody::File { .. } => reply.status,
            ReplyBody::Bytes(_) => exchange.status_of(reply.status),
        };
        let fields = self.fields(exchange, &reply, status);
        let (body, length) = match reply.body {
            ReplyBody::File { length, .. } => (None, length),
            ReplyBody::Bytes(bytes) => {
                (Some(String::from_utf8_lossy(&bytes).into_owned()), bytes.len() as u64)
            }
        };
        End::Reply { status, fields, body, length }
    }

    /// An error without a page, as `proxy::fail` would answer it.
    fn failure(&self, exchange: &mut Exchange, error: &ProxyError) -> End {
        exchange.forget_page_status();
        let failure = Failure::of(error);
        let fields = self.fields(exchange, &Reply::of_error(error), failure.status);
        End::Failure { failure, fields }
    }

    fn fields(&self, exchange: &Exchange, reply: &Reply, status: u16) -> Vec<(String, String)> {
        let (answer, _) = reply.completed(exchange, self.client, status);
        answer.lines().iter().map(|line| (shown(&line.name), shown(&line.value))).collect()
    }

    /// The line of an inherited key.
    pub(super) fn line_of(&self, exchange: &Exchange, key: &str) -> Option<usize> {
        self.places.inherited(exchange.server_place(), exchange.location_place(), key)
    }

    /// Takes over what has happened since.
    fn tell(&mut self, exchange: &Exchange) {
        let events = exchange.course().events();
        for event in events.into_iter().skip(self.told) {
            self.told += 1;
            if let Some(step) = self.step(exchange, event) {
                self.steps.push(step);
            }
        }
    }

    fn step(&mut self, exchange: &Exchange, event: Event) -> Option<Step> {
        let place = exchange.server_place();
        Some(match event {
            Event::Script(location) => Step::Script(location.map(|location| Named {
                name: exchange.server().locations[location].matcher.to_string(),
                line: self.places.location(place, location),
            })),
            Event::Search(path) => {
                self.searching = Some(Searching::of(&path));
                return None;
            }
            Event::Considered(considered) => {
                self.searching.as_mut()?.add(&considered);
                return None;
            }
            Event::Found(found) => {
                Step::Search(self.searching.take()?.found(found, exchange.server(), place, self.places))
            }
            Event::RewriteMissed(text) => Step::Rewrite { text, from: self.target.clone(), to: None },
            Event::Rewritten(text, to) => {
                let to = shown(to.strip_suffix(b"?").unwrap_or(&to));
                let from = std::mem::replace(&mut self.target, to.clone());
                Step::Rewrite { text, from, to: Some(to) }
            }
            Event::Condition(text, holds) => Step::If { text, holds },
            Event::Set(name, value) => Step::Set { name, value: shown(&value) },
            Event::Break => Step::Break,
            Event::Answered(answer) => Step::Return(match answer {
                Answer::Status(status) => Failure::title(status),
                Answer::Text(status, text) => format!("{status} '{}'", shown(&text)),
                Answer::Redirect(status, to) => format!("{status} {}", shown(&to)),
            }),
            Event::Looked(path, is_there) => Step::Looked { path: shown(&path), is_there },
            Event::Goto(name) => {
                let location = exchange.server().named.get(&name);
                let line = location.and_then(|location| self.places.location(place, *location));
                Step::Goto(Named { name, line })
            }
        })
    }

    fn walked(self, exchange: &Exchange, end: End) -> Walked {
        let (server, location) = (exchange.server_place(), exchange.location_place());
        let is_outer = location == exchange.server().outer();
        let default_server = self.state.server_for(&self.client.listener, "").unwrap_or(server);
        let scope = Scope { places: self.places, default_server, server, location };
        let kind = match (&end, self.upgrade.as_ref().is_some_and(|upgrade| upgrade.is_passed)) {
            (End::Upstream(_), true) => Kind::Tunnel,
            (End::Upstream(_), false) => Kind::Forward,
            _ => Kind::Local,
        };
        let limits = &self.state.config.servers[default_server].limits;
        let has_body = kind != Kind::Local && !exchange.has_read_body;
        Walked {
            server: self.server(exchange),
            location: (!is_outer).then(|| Named {
                name: exchange.location().matcher.to_string(),
                line: self.places.location(server, location),
            }),
            timeouts: setting::timeouts(scope, limits, exchange.location(), kind, has_body),
            steps: self.steps,
            upgrade: self.upgrade,
            end,
        }
    }

    fn server(&self, exchange: &Exchange) -> Server {
        let place = exchange.server_place();
        let address = &self.client.listener;
        let listener = self.state.config.listeners.iter().find(|listener| listener.address == *address);
        let host = exchange.host();
        let host = host.as_str();
        let claim = listener.map_or(Claim::Default, |listener| listener.servers.claim(host).1);
        let why = handshake::why(claim, host, address);
        let named = Named { name: exchange.server().name.clone(), line: self.places.server(place) };
        Server { named, why }
    }
}

/// What becomes of the wish for another protocol, if there is one.
fn wish(exchange: &Exchange, intent: &Result<Intent, ProxyError>) -> Option<super::Upgrade> {
    let request = exchange.request();
    let asked: Vec<String> = request.head.fields.values(Known::Upgrade).map(shown).collect();
    if asked.is_empty() {
        return None;
    }
    let (is_passed, why) = match intent {
        Ok(Intent::Upgrade(upgrade)) if upgrade.protocol().eq_ignore_ascii_case(b"websocket") => {
            (true, "a tunnel opens once the upstream's 101 answers this very handshake".to_owned())
        }
        Ok(Intent::Upgrade(_)) => (true, "a tunnel opens once the upstream answers with a 101".to_owned()),
        Ok(Intent::Forward) if exchange.course().is_get => {
            (false, "an error page is fetched by an ordinary GET".to_owned())
        }
        Ok(Intent::Forward) => {
            let why = upgrade::asked_for(request, &exchange.location().upgrade).err();
            (false, why.map_or_else(String::new, |why| format!("{why}: it goes on as ordinary HTTP")))
        }
        Err(error) => (false, error.in_full()),
    };
    Some(super::Upgrade { protocol: asked.join(", "), is_passed, why })
}

fn target(path: &[u8], args: &[u8]) -> String {
    match args.is_empty() {
        true => shown(path),
        false => shown(&[path, b"?", args].concat()),
    }
}
