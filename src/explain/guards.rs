//! What a request has to pass: who may come, and how often. What can be said without asking a file, a counter or
//! another location is said; the rest is taken to let the request pass.

use super::walk::Walk;
use super::{Step, shown};
use crate::access::{self, Guards};
use crate::error::ProxyError;
use crate::exchange::Exchange;

impl Walk<'_> {
    /// Takes the request past the guards of its location, in the order of `access`.
    pub(super) fn guarded(&mut self, exchange: &mut Exchange) -> Result<(), ProxyError> {
        exchange.ask_again_who_sent_it(self.client);
        self.limits(exchange);
        let rules = exchange.location().access.clone();
        if rules.any_is_enough && !rules.is_open() {
            self.tell_guard(exchange, "satisfy", "one of these is enough", None);
        }
        let mut all = Guards::new(rules.any_is_enough);
        let client = exchange.client_ip(self.client).map_or_else(|| "unix:".to_owned(), |ip| ip.to_string());
        let by_address = access::by_address(exchange, self.client);
        match &by_address {
            None => {}
            Some(Ok(())) => self.tell_guard(exchange, "access", &format!("{client} is allowed"), Some(true)),
            Some(Err(_)) => self.tell_guard(exchange, "access", &format!("{client} is denied"), Some(false)),
        }
        if let Some(settled) = all.add(by_address) {
            return settled;
        }
        let challenge =
            rules.basic.as_ref().and_then(|basic| access::challenge(exchange, self.client, basic));
        let by_password = challenge.map(|challenge| match challenge {
            Ok(challenge) => {
                let (user, file) = (shown(&challenge.credentials.user), shown(&challenge.file));
                let text = format!("the password of `{user}` would be looked up in {file}");
                self.tell_guard(exchange, "auth_basic", &text, None);
                Ok(())
            }
            Err(error) => {
                self.tell_guard(exchange, "auth_basic", &error.in_full(), Some(false));
                Err(error)
            }
        });
        if let Some(settled) = all.add(by_password) {
            return settled;
        }
        let by_subrequest = rules.auth_request.as_ref().map(|path| {
            let text = format!("the answer to GET {path} would decide");
            self.tell_guard(exchange, "auth_request", &text, None);
            Ok(())
        });
        if let Some(settled) = all.add(by_subrequest) {
            return settled;
        }
        all.end()
    }

    /// As in `access::limit`, the first location of a request with limits counts it.
    fn limits(&mut self, exchange: &mut Exchange) {
        let zones = &self.state.config.zones;
        let rules = exchange.location().access.clone();
        if exchange.outcome.limit_req.is_none() && !rules.limit_req.list.is_empty() {
            exchange.outcome.limit_req = Some("PASSED");
            for limit in rules.limit_req.list.iter() {
                let zone = &zones.req[limit.zone];
                let rate = match (zone.rate, zone.rate % 1000) {
                    (rate, 0) => format!("{}r/s", rate / 1000),
                    (rate, _) => format!("{}r/m", rate * 60 / 1000),
                };
                let (name, key, burst) = (&zone.name, &zone.written_key, limit.burst / 1000);
                let text = format!("it would be counted in `{name}` by `{key}`: {rate}, burst {burst}");
                self.tell_guard(exchange, "limit_req", &text, None);
            }
        }
        if exchange.outcome.limit_conn.is_none() && !rules.limit_conn.list.is_empty() {
            exchange.outcome.limit_conn = Some("PASSED");
            for limit in rules.limit_conn.list.iter() {
                let zone = &zones.conn[limit.zone];
                let (name, key, most) = (&zone.name, &zone.written_key, limit.most);
                let text = format!("it would be counted in `{name}` by `{key}`: {most} at a time");
                self.tell_guard(exchange, "limit_conn", &text, None);
            }
        }
    }

    fn tell_guard(&mut self, exchange: &Exchange, key: &'static str, text: &str, passes: Option<bool>) {
        let line = self.line_of(exchange, key);
        self.steps.push(Step::Guard { key, text: text.to_owned(), passes, line });
    }
}
