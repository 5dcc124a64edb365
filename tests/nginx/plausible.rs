//! Made-up nginx files: plausible ones, and ones that no person would write.

use fastrand::Rng;

/// A directive with what may stand behind it: words with `%` for something made up of that kind.
const HTTP: [&str; 22] = [
    "client_max_body_size %size;",
    "client_body_timeout %time;",
    "keepalive_timeout %time %time;",
    "keepalive_requests %number;",
    "large_client_header_buffers 4 %size;",
    "log_format brief '$remote_addr \"$request\" $status';",
    "log_format %word escape=json '{\"uri\":\"$uri\"}' ' $status';",
    "limit_req_zone %variable zone=%word:10m rate=%numberr/s;",
    "limit_conn_zone %variable zone=%word:1m;",
    "map %variable $%word { default %word; ~*^%word$ 1; \"\" %word; %word %variable; }",
    "map %variable $connection_upgrade { default upgrade; '' close; }",
    "upstream %word { server %address weight=%number; server %address backup; keepalive %number; }",
    "upstream backend { server %address; %balance; }",
    "resolver 127.0.0.1 valid=%time ipv6=off;",
    "sendfile on; tcp_nopush on; types_hash_max_size 2048;",
    "include /etc/hopgate-nobody/*.conf;",
    "server_tokens %flag;",
    "proxy_cache_path /tmp/c levels=1:2 keys_zone=%word:10m;",
    "geo $%word { default 0; 127.0.0.1 1; }",
    "split_clients %variable $%word { 50% a; * b; }",
    "types { text/html html; %word/%word %word; }",
    "underscores_in_headers %flag;",
];

const SERVER: [&str; 24] = [
    "listen %number;",
    "listen 127.0.0.1:80%number default_server backlog=511;",
    "listen [::]:80;",
    "listen unix:/tmp/%word.sock;",
    "listen 443 ssl http2;",
    "server_name %word.example.com *.%word.example.com;",
    "server_name _;",
    "server_name ~^(?<who>%word)\\.example\\.com$ \"\";",
    "ssl_certificate /etc/ssl/%word.pem; ssl_certificate_key /etc/ssl/%word.key; ssl_protocols TLSv1.2 TLSv1.3;",
    "ssl_verify_client on; ssl_client_certificate /etc/ssl/%word.pem;",
    "ssl_verify_client %word;",
    "ssl_trusted_certificate %word.pem; ssl_stapling on; ssl_ciphers HIGH:!aNULL; ssl_session_cache shared:x:10m;",
    "ssl_reject_handshake %flag;",
    "ssl_session_timeout %time; ssl_session_tickets %flag;",
    "ssl %flag; http2 %flag; http2_max_concurrent_streams %number;",
    "listen %number ssl; listen %number quic reuseport;",
    "ssl_certificate /etc/ssl/$ssl_server_name.pem; ssl_protocols %word;",
    "ssl_password_file %word; ssl_ocsp %flag; ssl_crl /etc/ssl/%word;",
    "set_real_ip_from 10.0.0.0/8; real_ip_header X-Forwarded-For; real_ip_recursive %flag;",
    "merge_slashes %flag;",
    "if ($host !~ ^(www\\.)?%word\\.com$) { return 444; }",
    "if ($scheme = http) { return 301 https://$host$request_uri; }",
    "return 301 https://$host$request_uri;",
    "location = /%word { return 204; }",
];

const ANYWHERE: [&str; 44] = [
    "proxy_set_header %name %value;",
    "proxy_set_header Host $host;",
    "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";",
    "proxy_http_version 1.1;",
    "proxy_read_timeout %time;",
    "proxy_send_timeout %time;",
    "proxy_connect_timeout %time;",
    "proxy_buffering %flag;",
    "proxy_buffers 8 %size; proxy_buffer_size %size;",
    "proxy_redirect off;",
    "proxy_redirect http://%word/ /%word/;",
    "proxy_redirect ~^http://(.*)$ https://$1;",
    "proxy_cookie_path / \"/%word; Secure\";",
    "proxy_hide_header %name;",
    "proxy_next_upstream error timeout http_502 non_idempotent;",
    "proxy_intercept_errors %flag;",
    "proxy_cache %word; proxy_cache_valid 200 %time; proxy_cache_bypass $http_pragma;",
    "add_header %name %value always;",
    "add_header %name %value;",
    "expires %expires;",
    "gzip %flag; gzip_types text/css application/json; gzip_comp_level %number;",
    "charset utf-8;",
    "root /srv/%word;",
    "index index.html /%word;",
    "error_page 404 /404.html;",
    "error_page 500 502 =200 @%word;",
    "access_log off;",
    "access_log /tmp/%word.log brief buffer=32k if=%variable;",
    "error_log /tmp/%word.log warn;",
    "allow 127.0.0.1; allow 2001:db8::/32; deny all;",
    "deny %word;",
    "auth_basic \"%word\"; auth_basic_user_file /etc/nginx/%word;",
    "auth_request /%word; auth_request_set $%word $upstream_http_%word;",
    "satisfy any;",
    "limit_req zone=%word burst=%number nodelay;",
    "limit_conn %word %number;",
    "limit_rate %size;",
    "fastcgi_param %name %value;",
    "lua_need_request_body on;",
    "tcp_nodelay on;",
    "client_max_body_size %size;",
    "if_modified_since before;",
    "default_type %word/%word;",
];

const LOCATION: [&str; 29] = [
    "proxy_pass http://%address;",
    "proxy_pass http://%address/%word/;",
    "proxy_pass http://backend;",
    "proxy_pass https://%address;",
    "proxy_pass https://backend/%word; proxy_ssl_verify %flag; proxy_ssl_server_name %flag; proxy_ssl_name %value;",
    "proxy_pass https://%address; proxy_ssl_certificate %word.pem; proxy_ssl_protocols TLSv1 %word; proxy_ssl_crl %word;",
    "grpc_pass %address; grpc_set_header %name %value; grpc_read_timeout %time;",
    "grpc_pass grpcs://backend; grpc_ssl_verify %flag; grpc_%word %flag;",
    "proxy_pass http://%word;",
    "proxy_pass http://$%word:%number;",
    "proxy_pass https://%word.example.com/$1?a=$args;",
    "proxy_pass http://unix:/tmp/%word.sock:/%word;",
    "set $%word %value; proxy_pass http://%variable;",
    "rewrite ^/%word/(.*)$ /$1 %rewrite;",
    "rewrite ^ /index.php?%word=$uri? %rewrite;",
    "rewrite \"^/a{2,3}/(.*)\" /$1;",
    "return %status;",
    "return %status %value;",
    "return 200 \"%word\\n\";",
    "alias /srv/%word/;",
    "try_files $uri $uri/ /index.html;",
    "try_files $uri @%word;",
    "try_files /%word =404;",
    "internal;",
    "if ($request_method = POST) { return 405; }",
    "if (%variable ~* \"(a|b)\") { set $%word $1; proxy_pass http://%address; }",
    "if (!-f $request_filename) { rewrite ^(.*)$ /%word/$1 last; break; }",
    "limit_except GET POST { deny all; }",
    "fastcgi_pass %address; include fastcgi_params;",
];

/// A file as people write or paste them: whole, or a server, or some locations.
pub fn plausible(rng: &mut Rng) -> String {
    let mut text = String::new();
    match rng.usize(0..4) {
        0 => {
            text += "user www-data;\nworker_processes auto;\nevents { worker_connections 768; }\nhttp {\n";
            http(rng, &mut text);
            text += "}\n";
        }
        1 | 2 => http(rng, &mut text),
        _ => {
            for _ in 0..rng.usize(1..4) {
                location(rng, &mut text, 0);
            }
        }
    }
    text
}

fn http(rng: &mut Rng, text: &mut String) {
    some_of(rng, &HTTP, 0..5, text);
    some_of(rng, &ANYWHERE, 0..3, text);
    for _ in 0..rng.usize(1..4) {
        *text += "server {\n";
        some_of(rng, &SERVER, 0..5, text);
        some_of(rng, &ANYWHERE, 0..5, text);
        for _ in 0..rng.usize(0..5) {
            location(rng, text, 0);
        }
        *text += "}\n";
    }
}

fn location(rng: &mut Rng, text: &mut String, depth: usize) {
    const MATCHERS: [&str; 12] = [
        "/",
        "/%word",
        "/%word/",
        "= /%word",
        "^~ /%word/",
        "~ ^/%word/(.*)$",
        "~* \\.(jpg|%word)$",
        "@%word",
        "~ \"^/a{1,2}/\"",
        "=/%word",
        "~/%word",
        "\"/a b\"",
    ];
    let matcher = MATCHERS[rng.usize(..MATCHERS.len())];
    let matcher = filled(rng, matcher);
    *text += &format!("location {matcher} {{\n");
    some_of(rng, &LOCATION, 0..3, text);
    some_of(rng, &ANYWHERE, 0..6, text);
    if depth < 2 && rng.usize(0..6) == 0 {
        location(rng, text, depth + 1);
    }
    *text += "}\n";
}

fn some_of(rng: &mut Rng, templates: &[&str], count: std::ops::Range<usize>, text: &mut String) {
    for _ in 0..rng.usize(count) {
        if rng.usize(0..8) == 0 {
            *text += "# what comes next\n";
        }
        let template = templates[rng.usize(..templates.len())];
        *text += &filled(rng, template);
        text.push('\n');
    }
}

/// The template with something of its kind for every `%kind`.
fn filled(rng: &mut Rng, template: &str) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('%') {
        text += before;
        let kind = KINDS.iter().find(|(kind, _)| behind.starts_with(kind));
        let Some((kind, choices)) = kind else {
            text.push('%');
            rest = behind;
            continue;
        };
        text += choices[rng.usize(..choices.len())];
        rest = &behind[kind.len()..];
    }
    text + rest
}

const KINDS: [(&str, &[&str]); 14] = [
    ("size", &["1m", "8k", "0", "512", "10G", "1024K"]),
    ("time", &["60s", "1h", "86400", "0", "1d 2h", "500ms", "1M", "\"1h 30m\""]),
    ("numberr", &["1r", "10r", "100r"]),
    ("number", &["1", "2", "5", "9", "80", "0"]),
    ("word", &["api", "ws", "app", "static", "backend", "x", "login", "b-1", "api.v2"]),
    (
        "variable",
        &["$host", "$uri", "$http_upgrade", "$arg_x", "$remote_addr", "$binary_remote_addr", "$api", "$1"],
    ),
    (
        "address",
        &["127.0.0.1:3000", "localhost:8080", "[::1]:3000", "app:80", "10.0.0.1", "unix:/tmp/a.sock"],
    ),
    (
        "balance",
        &["ip_hash", "least_conn", "hash $request_uri consistent", "random two", "keepalive 8", "zone a 64k"],
    ),
    ("flag", &["on", "off"]),
    (
        "name",
        &["X-Real-IP", "Host", "Cache-Control", "X-A", "Upgrade", "Set-Cookie", "Content-Length", "X_Y"],
    ),
    (
        "value",
        &[
            "$host",
            "\"\"",
            "'a b'",
            "$scheme://$host$request_uri",
            "\"a\\\"b\"",
            "${uri}x",
            "/x?y=$args",
            "é",
        ],
    ),
    ("rewrite", &["last", "break", "redirect", "permanent", ""]),
    ("expires", &["30d", "-1", "epoch", "max", "off", "modified +24h", "@15h30m"]),
    ("status", &["200", "204", "301", "302", "403", "404", "444", "503", "418"]),
];

/// A file with mistakes in it: bytes that are gone, doubled, moved or from elsewhere.
pub fn damaged(rng: &mut Rng, file: &str) -> String {
    const STRAY: [&str; 24] = [
        "{",
        "}",
        ";",
        "\"",
        "'",
        "\\",
        "#",
        "$",
        "${",
        "\n",
        "\t",
        "\0",
        "é",
        "\u{feff}",
        "}}",
        "{{",
        "if (",
        ")",
        "include x;",
        "~",
        "http {",
        "%",
        "\r\n",
        "<url>",
    ];
    let mut chars: Vec<char> = file.chars().collect();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..chars.len() + 1);
        let end = (at + rng.usize(0..40)).min(chars.len());
        match rng.usize(0..4) {
            0 => drop(chars.drain(at..end)),
            1 => {
                let doubled: Vec<char> = chars[at..end].to_vec();
                chars.splice(at..at, doubled);
            }
            2 if rng.usize(0..8) == 0 => chars.truncate(end),
            _ => drop(chars.splice(at..at, STRAY[rng.usize(..STRAY.len())].chars())),
        }
    }
    chars.into_iter().collect()
}

/// No file at all.
pub fn noise(rng: &mut Rng) -> String {
    const WORDS: [&str; 24] = [
        "server",
        "location",
        "{",
        "}",
        ";",
        " ",
        "\n",
        "\"",
        "'",
        "\\",
        "#",
        "$",
        "if",
        "map",
        "upstream",
        "include",
        "*",
        "/",
        "proxy_pass",
        "http",
        "return",
        "~",
        "=",
        "\u{1f6aa}",
    ];
    (0..rng.usize(0..200)).map(|_| WORDS[rng.usize(..WORDS.len())]).collect()
}
