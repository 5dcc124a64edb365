//! What becomes of answers on their way: fields that are added, hidden and rewritten, as nginx does it, side by
//! side with nginx.

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use support::{ACCEPT, Hopgate, Nginx, Peer, Upstream, handshake, switching};

/// The fields of the answers that the upstream gives: `/PLACE/3` gets the fourth.
const ANSWERS: &[&str] = &[
    "200 OK|Content-Type: text/html",
    "200 OK|Content-Type: text/html; charset=koi8-r|X-Powered-By: app|X-Kept: 1|X-Pad: x",
    "200 OK|X-Accel-Expires: 1|X-Accel-Buffering: no|X-Accel-Limit-Rate: 0|X-Accel-Charset: x|X-Accelerated: yes",
    "302 Found|Location: http://UPSTREAM/one/two?x=http://UPSTREAM/",
    "302 Found|Location: http://UPSTREAM/",
    "302 Found|Location: http://elsewhere.example/one/two",
    "302 Found|Location: /relative",
    "302 Found|Location: relative",
    "301 Moved|Location: http://elsewhere.example/regex/of/this|Content-Type: text/html",
    "307 Again|Location: HTTP://UPSTREAM/one/",
    "308 Again|Location: http://UPSTREAM/one|Expires: Thu, 01 Jan 1970 00:00:01 GMT",
    "201 Made|Location: http://UPSTREAM/one/made",
    "404 Not Found|Content-Type: text/plain|Location: http://UPSTREAM/one/odd",
    "200 OK|Refresh: 7; url=http://UPSTREAM/one/x",
    "200 OK|Refresh: 7;URL=http://UPSTREAM/one/x",
    "200 OK|Refresh: 7",
    "200 OK|Set-Cookie: a=b; Path=/one/; Domain=www.example.org; HttpOnly|Set-Cookie: c=d",
    "200 OK|Set-Cookie: a=b;path = /ONE/ ;domain=.WWW.Example.org",
    "200 OK|Set-Cookie: a=b; Path=/regex/x/y; Domain=sub.example.com",
    "200 OK|Set-Cookie: session=b; Secure; SameSite=None; Path=/",
    "200 OK|Set-Cookie: other=path=/one/; Path; Domain",
    "200 OK|Set-Cookie: lone; Path=/one/|Set-Cookie: e=; Path=/one/sub",
    "200 OK|Cache-Control: private|Cache-Control: no-store|Expires: never|Last-Modified: Mon, 28 Sep 1970 06:00:00 GMT",
    "200 OK|Last-Modified: Mon, 28 Sep 2020 06:00:00 GMT|ETag: \"x\"|Link: </a>",
    "204 No Content|X-A: upstream",
    "206 Partial Content|Content-Range: bytes 0-0/9|X-A: upstream",
    "304 Not Modified|ETag: \"x\"|Last-Modified: junk",
    "403 Forbidden|Content-Type: application/javascript",
    "500 Oops|Content-Type: image/png|Cache-Control: public",
    "200 OK|Content-Type: TEXT/XML|Vary: Cookie",
    "200 OK|Content-Type: text/plain; format=flowed",
];

/// A place with its rules, in both languages. In nginx's `'` and `"` quote words, in TOML texts.
struct Place {
    name: &'static str,
    uri: &'static str,
    nginx: &'static str,
    hopgate: &'static str,
}

const fn place(name: &'static str, uri: &'static str, nginx: &'static str, hopgate: &'static str) -> Place {
    Place { name, uri, nginx, hopgate }
}

const PLACES: &[Place] = &[
    place("plain", "", "", ""),
    place("uri", "/one/", "", ""),
    place("off", "/one/", "proxy_redirect off;", "proxy_redirect = 'off'"),
    place(
        "list",
        "/one/",
        "proxy_redirect wrong /never; proxy_redirect ~^http://[^/]+/regex/(.+)/(?:this)$ /found/$1$is_args; \
         proxy_redirect http://elsewhere.example/ https://$server_name/; proxy_redirect default;",
        "proxy_redirect = ['wrong /never', '~^http://[^/]+/regex/(.+)/(?:this)$ /found/$1$is_args', \
         'http://elsewhere.example/ https://$server_name/', 'default']",
    ),
    place(
        "caseless",
        "",
        "proxy_redirect ~*^HTTP://([^/]+)(.*)$ http://front.example$2;",
        "proxy_redirect = '~*^HTTP://([^/]+)(.*)$ http://front.example$2'",
    ),
    place("relative", "/one/", "absolute_redirect off;", "absolute_redirect = false"),
    place(
        "cookies",
        "",
        "proxy_cookie_path /one/ /two/; proxy_cookie_path ~^/regex/(.+)/y$ /$1; \
         proxy_cookie_domain .www.example.org .$server_name; proxy_cookie_domain ~^SUB\\.(.+)$ $1;",
        "proxy_cookie_path = ['/one/ /two/', '~^/regex/(.+)/y$ /$1']\n\
         proxy_cookie_domain = ['.www.example.org .$server_name', '~^SUB\\.(.+)$ $1']",
    ),
    place(
        "flags",
        "",
        "proxy_cookie_flags session nosecure httponly samesite=lax; proxy_cookie_flags ~^A$ secure nohttponly;",
        "proxy_cookie_flags = ['session nosecure httponly samesite=lax', '~^A$ secure nohttponly']",
    ),
    place(
        "hidden",
        "",
        "proxy_hide_header x-powered-by; proxy_hide_header X-Kept; proxy_hide_header Set-Cookie; \
         proxy_pass_header X-Kept; proxy_pass_header X-Accel-Expires; proxy_pass_header X-Pad;",
        "proxy_hide_header = ['x-powered-by', 'X-Kept', 'Set-Cookie']\n\
         proxy_pass_header = ['X-Kept', 'X-Accel-Expires', 'X-Pad']",
    ),
    place(
        "added",
        "",
        "add_header X-A 1; add_header X-A 2 always; add_header X-Empty ''; add_header Last-Modified ''; \
         add_header ETag '\"new\"' always; add_header Cache-Control public; add_header Link '</b>'; \
         add_header X-Of '$upstream_status $upstream_http_x_a $sent_http_content_type $status' always;",
        "add_header = { X-A = ['1', { value = '2', always = true }], X-Empty = '', Last-Modified = '', \
         ETag = { value = '\"new\"', always = true }, Cache-Control = 'public', Link = '</b>', \
         X-Of = { value = '$upstream_status $upstream_http_x_a $sent_http_content_type $status', always = true } }",
    ),
    place("epoch", "", "expires epoch;", "expires = 'epoch'"),
    place("max", "", "expires max;", "expires = 'max'"),
    place("modified", "", "expires modified 1h;", "expires = 'modified 1h'"),
    place(
        "by_type",
        "",
        "expires $arg_e; add_header X-E $sent_http_expires;",
        "expires = '$arg_e'\nadd_header = { X-E = '$sent_http_expires' }",
    ),
    place("charset", "", "charset utf-8;", "charset = 'utf-8'"),
    place(
        "types",
        "",
        "charset $arg_c; charset_types image/png;",
        "charset = '$arg_c'\ncharset_types = 'image/png'",
    ),
    place("any", "", "charset utf-8; charset_types *;", "charset = 'utf-8'\ncharset_types = '*'"),
];

#[test]
fn answers_have_the_fields_that_nginx_gives_them() {
    if !Nginx::is_installed() {
        return;
    }
    let upstream = table(ANSWERS);
    let nginx =
        Nginx::start(&format!("server {{ listen 80; server_name front.test; {} }}", nginx_places(upstream)));
    let hopgate = Hopgate::start(&hopgate_places(upstream));
    let nginx_addr = nginx.addr().parse().expect("an address");
    let mut wrong = Vec::new();
    for place in PLACES {
        for (number, answer) in ANSWERS.iter().enumerate() {
            let target = format!("/{}/{number}?e=max&c=x-c", place.name);
            let both = || (answer_of(nginx_addr, &target), answer_of(hopgate.addr(), &target));
            let (mut expected, mut got) = both();
            if expected != got {
                // A second may have passed between the two.
                (expected, got) = both();
            }
            if expected != got {
                wrong.push(format!("{target} {answer}\nnginx:   {expected:#?}\nhopgate: {got:#?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{} differ", wrong.join("\n"), wrong.len());
}

fn nginx_places(upstream: SocketAddr) -> String {
    let places = PLACES.iter().map(|Place { name, uri, nginx, .. }| {
        let (path, url) = urls(name, uri, upstream);
        format!("location {path} {{ proxy_set_header Host $http_host; proxy_pass {url}; {nginx} }}\n")
    });
    places.collect()
}

fn hopgate_places(upstream: SocketAddr) -> String {
    let places = PLACES.iter().map(|Place { name, uri, hopgate, .. }| {
        let (path, url) = urls(name, uri, upstream);
        format!("[[server.location]]\npath = '{path}'\nproxy_pass = '{url}'\n{hopgate}\n")
    });
    format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0'\nserver_name = 'front.test'\n{}",
        places.collect::<String>()
    )
}

fn urls(name: &str, uri: &str, upstream: SocketAddr) -> (String, String) {
    (format!("/{name}/"), format!("http://{upstream}{uri}"))
}

/// What a proxy answers: the status line, and the fields that are not about the connection, in a fixed order. Its
/// own address is `SELF`.
fn answer_of(addr: SocketAddr, target: &str) -> Vec<String> {
    let mut client = connect(addr);
    client.send(format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"));
    let head = client.head();
    let about_the_hop = ["Server", "Date", "Connection", "Transfer-Encoding", "Content-Length"];
    let fields = head
        .fields
        .iter()
        .filter(|(name, _)| !about_the_hop.iter().any(|hop| hop.eq_ignore_ascii_case(name)));
    let mut fields: Vec<_> = fields
        .map(|(name, value)| {
            format!("{}: {}", name.to_ascii_lowercase(), value.replace(&addr.to_string(), "SELF"))
        })
        .collect();
    fields.sort();
    fields.insert(0, head.status().to_string());
    fields
}

#[track_caller]
fn connect(addr: SocketAddr) -> Peer {
    Peer::new("client", TcpStream::connect(addr).expect("a proxy that listens"))
}

/// An upstream that answers `/…/N` with the Nth of these, and closes.
fn table(answers: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port to listen on");
    let addr = listener.local_addr().expect("a listener has an address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A proxy that has gone is the test's end.
            let _ = answer_from(answers, addr, stream);
        }
    });
    addr
}

fn answer_from(answers: &[&str], addr: SocketAddr, stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let (mut request, mut line) = (String::new(), String::new());
    reader.read_line(&mut request)?;
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = request.split([' ', '?']).nth(1).unwrap_or_default();
    let number = path.rsplit('/').next().and_then(|number| number.parse::<usize>().ok());
    let answer = number.and_then(|number| answers.get(number)).unwrap_or(&"400 Bad");
    let head = answer.replace("UPSTREAM", &addr.to_string()).replace('|', "\r\n");
    let has_body = !head.starts_with("204") && !head.starts_with("304");
    let body = if has_body { "\r\nContent-Length: 1\r\n\r\nx" } else { "\r\n\r\n" };
    (&stream).write_all(format!("HTTP/1.1 {head}\r\nConnection: close{body}").as_bytes())
}

#[test]
fn the_rules_of_the_inner_level_take_the_place_of_those_of_the_outer() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        add_header = {{ X-Top = "1" }}
        proxy_hide_header = "X-A"
        proxy_redirect = "off"
        [[server]]
        listen = "127.0.0.1:0"
        proxy_pass_header = "X-Pad"
        [[server.location]]
        path = "/"
        proxy_pass = "http://{0}"
        [[server.location]]
        path = "/in"
        proxy_pass = "http://{0}"
        add_header = {{ X-In = "$uri" }}
        proxy_hide_header = "X-B"
        proxy_redirect = "default"
        "#,
        upstream.addr()
    ));
    let answer = format!(
        "HTTP/1.1 302 Found\r\nX-A: 1\r\nX-B: 1\r\nX-Pad: 1\r\nLocation: http://{}/x\r\nContent-Length: 0\r\n\r\n",
        upstream.addr()
    );
    let (mut client, mut server) = asked(&hopgate, &upstream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    server.send(&answer);
    let head = client.response().head;
    head.expect(&["X-Top: 1", "X-B: 1", "X-Pad: 1", &format!("Location: http://{}/x", upstream.addr())]);
    head.expect_none_of(&["X-A", "X-In"]);
    client.send("GET /in HTTP/1.1\r\nHost: a\r\n\r\n");
    server.head();
    server.send(&answer);
    let head = client.response().head;
    head.expect(&[
        "X-In: /in",
        "X-A: 1",
        "X-Pad: 1",
        &format!("Location: http://a:{}/x", hopgate.addr().port()),
    ]);
    head.expect_none_of(&["X-B", "X-Top"]);
}

#[test]
fn what_hopgate_answers_by_itself_has_the_fields_of_its_location() {
    let hopgate = Hopgate::start(
        r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0"
        add_header = { X-Good = "$status $sent_http_content_type", X-Always = { value = "$uri", always = true } }
        expires = "1h"
        charset = "utf-8"
        access_log = "stdout sent"
        [[server.location]]
        path = "/text"
        return = "200 hello"
        [[server.location]]
        path = "/gone"
        return = "410"
        [[server.location]]
        path = "/there"
        return = "301 /text"
        [log_format]
        sent = "$uri sent $sent_http_x_good;$sent_http_x_always"
        "#,
    );
    let get = |target: &str| {
        let mut client = hopgate.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.response().head
    };
    get("/text").expect(&[
        "Content-Type: text/plain; charset=utf-8",
        "X-Good: 200 text/plain",
        "X-Always: /text",
        "Cache-Control: max-age=3600",
        "Content-Length: 5",
    ]);
    assert_eq!(hopgate.wait_for_access("/text sent"), "/text sent 200 text/plain;/text");
    let gone = get("/gone");
    gone.expect(&["X-Always: /gone"]).expect_none_of(&["X-Good", "Expires", "Cache-Control"]);
    get("/there").expect(&[
        "X-Good: 301 text/plain",
        "Content-Type: text/plain",
        "Cache-Control: max-age=3600",
    ]);
    get("/nowhere").expect(&["X-Always: /nowhere"]).expect_none_of(&["X-Good"]);
    // A value with a byte that may not stand in a field is not sent.
    get("/text%0d%0aX-Evil:%201").expect_none_of(&["X-Always", "X-Evil"]);
}

#[test]
fn a_map_of_the_answer_decides_when_it_expires() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        [[map]]
        source = "$sent_http_content_type"
        variable = "expires"
        default = "off"
        entries = {{ "text/html" = "epoch", "~image/" = "max" }}
        [[server]]
        listen = "127.0.0.1:0"
        expires = "$expires"
        [[server.location]]
        path = "/"
        proxy_pass = "http://{}"
        "#,
        upstream.addr()
    ));
    for (content_type, told) in
        [("text/html", Some("no-cache")), ("image/png", Some("max-age=315360000")), ("text/css", None)]
    {
        let (mut client, mut server) = asked(&hopgate, &upstream, "GET / HTTP/1.0\r\n\r\n");
        server.send(format!("HTTP/1.0 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(client.head().field("Cache-Control"), told, "{content_type}");
    }
}

#[test]
fn the_101_of_a_tunnel_keeps_to_the_rules_and_stays_one() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(
        &upstream,
        "proxy_cookie_path = '/ /app/'\nproxy_hide_header = 'X-Powered-By'\n\
         add_header = { X-Good = '1', X-Always = { value = '2', always = true } }\ngzip = true\ngzip_types = '*'",
    );
    let (mut client, mut server) = asked(&hopgate, &upstream, &handshake("/chat"));
    let fields = "Set-Cookie: s=1; Path=/\r\nX-Powered-By: app\r\nX-Accel-Buffering: no\r\n";
    server.send(switching().replace("\r\n\r\n", &format!("\r\n{fields}\r\n")));
    let head = client.expect_status(101).head;
    head.expect(&["Set-Cookie: s=1; Path=/app/", "X-Always: 2", &format!("Sec-WebSocket-Accept: {ACCEPT}")]);
    head.expect(&["Connection: Upgrade", "Upgrade: websocket"]);
    head.expect_none_of(&["X-Powered-By", "X-Good", "X-Accel-Buffering", "Content-Encoding"]);
    server.send("frames");
    client.expect("frames");
}

#[test]
fn a_location_that_changes_nothing_passes_an_answer_on_byte_for_byte() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let (mut client, mut server) = asked(&hopgate, &upstream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = "HTTP/1.1 200 OK\r\nserver: app\r\nDATE: then\r\nx-Frame-options: A\r\nContent-Length: 0\r\nETag: x\r\n\r\n";
    server.send(head);
    assert_eq!(String::from_utf8_lossy(&client.head().raw), head);
}

/// A client whose request has reached the upstream.
#[track_caller]
fn asked(hopgate: &Hopgate, upstream: &Upstream, request: &str) -> (Peer, Peer) {
    let mut client = hopgate.connect();
    client.send(request);
    let mut server = upstream.accept();
    server.head();
    (client, server)
}
