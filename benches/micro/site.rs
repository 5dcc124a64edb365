//! A configuration in use, and requests of a client that is not there.

use std::net::SocketAddr;

use hopgate::client::ClientInfo;
use hopgate::config::{Config, Server};
use hopgate::http1::head::{self, HeadLimits, Progress, RequestHead};
use hopgate::request::{Addressed, Origin, Request};
use hopgate::routing::course::Course;
use hopgate::routing::outcome::Outcome;
use hopgate::routing::route::{Routed, Router};

/// What curl sends.
pub const SMALL: &str = "GET /app/list?page=2 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n\r\n";

/// What a browser sends that knows the site, behind another proxy: 25 fields, two of them for this hop only.
pub const BROWSER: &str = "GET /app/list?page=2&sort=name&filter=caf%C3%A9 HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    sec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    DNT: 1\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: https://www.example.com/app/list?page=1\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7\r\n\
    Cookie: _ga=GA1.2.1234567890.1700000000; consent=a%3A1%2Cb%3A0; theme=dark; lang=de\r\n\
    Cookie: session=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P\r\n\
    If-None-Match: \"33a64df551425fcc55e4d42a148795d9f25f89d4\"\r\n\
    If-Modified-Since: Sat, 21 Nov 2026 06:35:51 GMT\r\n\
    Priority: u=0, i\r\n\
    TE: trailers\r\n\
    X-Request-Start: t=1795242951123\r\n\
    X-Forwarded-For: 203.0.113.7\r\n\r\n";

/// A configuration with one server, and a client that has connected to it.
pub struct Site {
    pub config: Config,
    pub client: ClientInfo,
}

/// A request on its way.
pub struct OnItsWay<'a> {
    pub site: &'a Site,
    pub request: Request,
    pub outcome: Outcome,
}

impl Site {
    /// Of the text of a configuration; the listener of its server is added.
    pub fn new(text: &str) -> Self {
        let text = text.replacen("[[server]]", "[[server]]\nlisten = \"127.0.0.1:8080\"", 1);
        let config = Config::parse("site.toml", &text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let client = ClientInfo {
            id: 1234,
            address: Some(SocketAddr::from(([192, 0, 2, 60], 49152))),
            proxied: None,
            local: Some(SocketAddr::from(([127, 0, 0, 1], 8080))),
            path: None,
            listener: config.listeners[0].address.clone(),
            requests: 7,
            tls: None,
            lacks_tls: false,
        };
        Self { config, client }
    }

    pub fn server(&self) -> &Server {
        &self.config.servers[0]
    }

    pub fn limits(&self) -> HeadLimits {
        let limits = &self.server().limits;
        HeadLimits { size: limits.head_size, fields: limits.max_headers }
    }

    /// Reads the head of a request.
    pub fn head(&self, text: &str) -> RequestHead {
        match head::request(text.as_bytes(), 0, self.limits()) {
            Ok(Progress::Whole(head, taken)) if taken == text.len() => head,
            other => panic!("{other:?}"),
        }
    }

    /// A request that has come so far that it needs a location.
    pub fn request(&self, text: &str) -> OnItsWay<'_> {
        let addressed = Addressed::new(self.head(text)).unwrap_or_else(|(error, _)| panic!("{error}"));
        let request = addressed.check(self.server()).unwrap_or_else(|(error, _)| panic!("{error}"));
        OnItsWay { site: self, request, outcome: Outcome::default() }
    }
}

impl OnItsWay<'_> {
    pub fn router(&self) -> Router<'_> {
        let Site { config, client } = self.site;
        Router {
            config,
            server: self.site.server(),
            client,
            origin: Origin::of(client, &self.request.head, &self.site.server().real_ip),
            request: &self.request,
            outcome: &self.outcome,
        }
    }

    /// Takes it to its location.
    pub fn route(&self, course: &mut Course) -> Routed {
        self.router().start(course)
    }
}
