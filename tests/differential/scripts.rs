//! Generated servers that rewrite, compare and map, in nginx's language, and requests that put them to the test.

use fastrand::Rng;

use crate::world::Ask;

/// What stands in every answer.
const SEEN: &str = "<$uri|$args|$v1|$v2|$m1|$m2|$m3>";

const MAPS: &str = r#"
    map $arg_a $m1 { default other; "" none; a A; b "b $uri"; *.x star; "~^c(?<rest>.*)$" "c-$rest"; ~*^D$ d; \default escaped; }
    map $host $m2 { hostnames; default nobody; world.test here; *.world.test sub-$v1; www.* www; .both.test both; }
    map "$uri$is_args$args" $m3 { ~^/a/(\w+) "seg $1"; ~*\.GIF$ image; volatile; default -; }
"#;

const SERVER_STEPS: [&str; 12] = [
    "set $v1 server;",
    "set $v2 \"${v1}-$arg_a\";",
    "if ($arg_a = %word) { return 403; }",
    "if ($http_x_a ~* ^(a)(b)?) { set $v2 \"$1-$2\"; }",
    "if ($http_x_a !~ a) { set $v1 not; }",
    "if ($request_method = POST) { return 405; }",
    "if ($args) { set $v1 \"args $args\"; }",
    "if ($host != world.test) { rewrite ^(.*)$ /b$1 last; }",
    "rewrite ^/old/(.*)$ /a/$1 last;",
    "rewrite ^/old2/(\\w+) /%word/$1?from=$1 %flag;",
    "rewrite ^/(\\w+)/swap/(\\w+)$ /$2/$1? break;",
    "rewrite ^/far/(.*)$ http://far.test/$1 %flag;",
];

const STEPS: [&str; 20] = [
    "set $v1 %place;",
    "set $v2 \"$v1 $uri\";",
    "set $args x=y&$args;",
    "rewrite ^/a/(.*)$ /b/$1 %flag;",
    "rewrite ^/b/(.*)$ /c/$1 %flag;",
    "rewrite ^/(.*)/x$ /$1 %flag;",
    "rewrite ^(/[^/]+)(/.*)?$ /d$2?seg=$1 %flag;",
    "rewrite /e$ /a/e%20f? break;",
    "rewrite ^ /%word/fixed last;",
    "rewrite ^/none/ /never last;",
    "rewrite \"^/a{1,2}/(.)\" /b/$1$1 %flag;",
    "rewrite ^/(?<named>\\w+)\\.php$ /$named/php %flag;",
    "if ($arg_a) { set $v1 \"arg $arg_a\"; }",
    "if ($arg_a = a) { rewrite ^ /b/if last; }",
    "if ($arg_b ~ ^(\\d+)$) { return 302 /num/$1; }",
    "if ($cookie_c = yes) { return 200 \"cookie <$uri>\"; }",
    "if ($m1 ~* ^(a|d)$) { set $v2 \"m $1\"; break; }",
    "if ($uri !~* ^/a) { set $v2 no-a; }",
    "if (-f $document_root$uri) { return 200 \"file <$uri>\"; }",
    "if (!-e $document_root$uri) { set $v2 missing; }",
];

const CONTENTS: [&str; 18] = [
    "return 200 \"%place %seen\";",
    "return 200 \"%place %seen\";",
    "return 301 /%word$uri;",
    "return 302 http://$host/x?$args;",
    "return 303 $scheme://$host/%word;",
    "return 404;",
    "error_page 404 = @one; return 404;",
    "error_page 404 =200 /b/page; return 404;",
    "error_page 403 410 /b/page?e=1; return 410;",
    "error_page 503 =302 http://$host/down; return 503;",
    "%proxy proxy_pass http://app;",
    "%proxy proxy_pass http://app/up;",
    "%proxy proxy_pass http://app/up/;",
    "%proxy proxy_pass http://$arg_up/$v1;",
    "%proxy set $to app; proxy_pass http://$to$uri;",
    "try_files $uri $uri/ @two;",
    "try_files /none.html /b/tried?t=1;",
    "try_files $uri =418;",
];

/// Locations in which a `proxy_pass` may not have a URI part, or that nobody may come to by themselves.
const PLACES: [&str; 9] =
    ["/", "/a/", "/b/", "^~ /c", "= /d/fixed", "~ \\.(gif|php)$", "~* ^/(API)/(\\w+)", "/i/", "/static"];

/// One server, on this socket, with files in `root`.
pub fn server(rng: &mut Rng, name: &str, socket: &str, root: &str) -> String {
    let mut text =
        format!("server {{\n    listen unix:{socket};\n    root {root};\n    set $v1 \"\"; set $v2 \"\";\n");
    for _ in 0..rng.usize(0..4) {
        step(rng, &SERVER_STEPS, name, &mut text);
    }
    let mut number = 0;
    for place in PLACES {
        if rng.usize(0..3) > 0 || place == "/" {
            number += 1;
            location(rng, place, &format!("{name}l{number}"), &mut text);
        }
    }
    for place in ["@one", "@two"] {
        location(rng, place, &format!("{name}{place}"), &mut text);
    }
    text + "}\n"
}

fn location(rng: &mut Rng, place: &str, name: &str, text: &mut String) {
    *text += &format!("    location {place} {{\n");
    if place == "/i/" {
        *text += "        internal;\n";
    }
    let is_prefix = place.starts_with(['/', '=']) || place.starts_with("^~");
    let content = loop {
        let content = CONTENTS[rng.usize(..CONTENTS.len())];
        if is_prefix || !content.contains("app/up") {
            break content;
        }
    };
    // nginx forgets its try_files as soon as an `if` has held ("if is evil"); hopgate does not.
    let steps: Vec<&str> =
        STEPS.into_iter().filter(|step| !(content.contains("try_files") && step.starts_with("if"))).collect();
    for _ in 0..rng.usize(0..4) {
        *text += "    ";
        step(rng, &steps, name, text);
    }
    *text += "    ";
    step(rng, &[content], name, text);
    *text += "    }\n";
}

fn step(rng: &mut Rng, templates: &[&str], name: &str, text: &mut String) {
    let template = templates[rng.usize(..templates.len())];
    let word = ["a", "b", "c", "d", "x"][rng.usize(..5)];
    let flag = ["", "last", "break", "redirect", "permanent"][rng.usize(..5)];
    let proxy = format!(
        "proxy_set_header X-Seen \"{name} {SEEN}\"; proxy_http_version 1.1; proxy_set_header Connection \"\";"
    );
    let step = template
        .replace("%word", word)
        .replace(" %flag", if flag.is_empty() { "" } else { " %flag" })
        .replace("%flag", flag)
        .replace("%place", name)
        .replace("%seen", SEEN)
        .replace("%proxy", &proxy);
    *text += &format!("    {step}\n");
}

/// What stands before all servers.
pub fn top() -> &'static str {
    MAPS
}

/// A request that comes by what the servers look at.
pub fn ask(rng: &mut Rng) -> Ask {
    const PATHS: [&str; 24] = [
        "/",
        "/a/x",
        "/a/b/c",
        "/aa/b",
        "/b/",
        "/b/page",
        "/b/if",
        "/c",
        "/c/x",
        "/d",
        "/d/fixed",
        "/old/x",
        "/old2/z",
        "/a/swap/b",
        "/far/x",
        "/e",
        "/x.gif",
        "/name.php",
        "/api/v1",
        "/i/x",
        "/none/x",
        "/static/app.css",
        "/index.html",
        "/docs",
    ];
    const QUERIES: [&str; 12] = [
        "",
        "",
        "",
        "?a=a",
        "?a=b",
        "?a=cde",
        "?a=d",
        "?a=default",
        "?a=x.x&b=12",
        "?b=7",
        "?up=app",
        "?a=c%20d",
    ];
    const FIELDS: [&str; 6] =
        ["", "", "X-A: ab\r\n", "X-A: Ac\r\n", "Cookie: b=1; c=yes\r\n", "X-A: b\r\nCookie: c=no\r\n"];
    const HOSTS: [&str; 5] = ["world.test", "world.test", "a.world.test", "www.x", "both.test"];
    let path = PATHS[rng.usize(..PATHS.len())];
    let rest = ["", "", "", "/x", "/%20y", "/z.gif"][rng.usize(..6)];
    Ask {
        host: Some(HOSTS[rng.usize(..HOSTS.len())].into()),
        target: format!("{path}{rest}{}", QUERIES[rng.usize(..QUERIES.len())]),
        fields: FIELDS[rng.usize(..FIELDS.len())].into(),
    }
}
