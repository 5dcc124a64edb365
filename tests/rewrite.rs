//! `set`, `rewrite`, `if`, `return`, `map` and error pages: what clients and upstreams see is what they see of nginx, on
//! a file that says the same in nginx's words.

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::{fs, thread};

use support::{Dir, Hopgate, Nginx, Peer, Upstream, free_addr};

#[test]
fn a_rewrite_goes_on_as_its_flag_says() {
    Pair::start(
        "server { listen LISTEN;
            location / { return 200 'root $uri $args'; }
            location /last { rewrite ^/last(.*)$ /found$1 last; return 200 'never'; }
            location /break { rewrite ^/break(.*)$ /found$1 break; proxy_pass http://APP; }
            location /none { rewrite ^/none/(.*)$ /step/$1; rewrite ^/step/(.*)$ /found/$1; set $x 1; }
            location /found { return 200 'found $uri $args'; }
            location /302 { rewrite ^/302(.*)$ /found$1 redirect; }
            location /301 { rewrite ^/301(.*)$ /found$1 permanent; }
            location /url { rewrite ^/url(.*)$ http://example.com$1; }
            location /scheme { rewrite ^/scheme(.*)$ $scheme://example.com$1; }
            location /stop { break; rewrite ^ /found; proxy_pass http://APP; }
            location /late { rewrite ^ /found; break; proxy_pass http://APP; }
            location /missed { rewrite ^/x /found last; proxy_pass http://APP; }
            location /uri/ { rewrite ^/uri/(.*)$ /other/$1 break; proxy_pass http://APP/never/; }
            location /caseful { rewrite ^/CASEFUL /found last; return 200 'not found'; }
            location /inline { rewrite (?i)^/INLINE /found last; }
        }",
        r#"
        [[server]]
        listen = "LISTEN"
        location = [
            { path = "/", return = "200 'root $uri $args'" },
            { path = "/last", rewrite = "^/last(.*)$ /found$1 last", return = "200 never" },
            { path = "/break", rewrite = "^/break(.*)$ /found$1 break", proxy_pass = "http://APP" },
            { path = "/none", rewrite = ["^/none/(.*)$ /step/$1", "^/step/(.*)$ /found/$1", { set = { x = "1" } }] },
            { path = "/found", return = "200 'found $uri $args'" },
            { path = "/302", rewrite = "^/302(.*)$ /found$1 redirect" },
            { path = "/301", rewrite = "^/301(.*)$ /found$1 permanent" },
            { path = "/url", rewrite = "^/url(.*)$ http://example.com$1" },
            { path = "/scheme", rewrite = "^/scheme(.*)$ $scheme://example.com$1" },
            { path = "/stop", rewrite = ["break", "^ /found"], proxy_pass = "http://APP" },
            { path = "/late", rewrite = ["^ /found", "break"], proxy_pass = "http://APP" },
            { path = "/missed", rewrite = "^/x /found last", proxy_pass = "http://APP" },
            { path = "/uri/", rewrite = "^/uri/(.*)$ /other/$1 break", proxy_pass = "http://APP/never/" },
            { path = "/caseful", rewrite = "^/CASEFUL /found last", return = "200 'not found'" },
            { path = "/inline", rewrite = "(?i)^/INLINE /found last" },
        ]
        "#,
    )
    .expect(&[
        ("/last/x?a=b", "200 found /found/x a=b"),
        ("/break/x?a=b", "200 GET /found/x?a=b"),
        ("/none/x?a=b", "200 found /found/x a=b"),
        ("/302/x?a=b", "302 -> http://a:PORT/found/x?a=b"),
        ("/301/x", "301 -> http://a:PORT/found/x"),
        ("/url/x?a=b", "302 -> http://example.com/x?a=b"),
        ("/scheme/x", "302 -> http://example.com/x"),
        ("/stop/x?a", "200 GET /stop/x?a"),
        ("/late/x?a", "200 GET /found?a"),
        ("/missed", "200 GET /missed"),
        ("/uri/x?a=b", "200 GET /other/x?a=b"),
        ("/uri/", "200 GET /other/"),
        ("/caseful", "200 not found"),
        ("/inline", "200 found /found "),
    ]);
}

#[test]
fn a_rewritten_query_is_put_together_as_by_nginx() {
    Pair::start(
        "server { listen LISTEN;
            location / { rewrite ^ http://example.com/ redirect; }
            location /add { rewrite ^ http://example.com/?c=d redirect; }
            location /no { rewrite ^ http://example.com/?c=d? redirect; }
            location /off { rewrite ^/off/(.*)$ /show/$1? last; }
            location /own { rewrite ^/own/(.*)$ /show/?own=$1 last; }
            location /only { rewrite ^/only/(.*)$ /show/?own=$1? last; }
            location /two { rewrite ^/two/(?<first>[^/]*)/(.*)$ /show/$2?f=$first&s=$2 last; }
            location /show { return 200 '$uri|$args|$is_args|$request_uri|$query_string|$arg_own'; }
            location /pass { rewrite ^/pass/(.*)$ /new/$1?x=$1 break; proxy_pass http://APP; }
            location /args { set $args 'new=$arg_own'; proxy_pass http://APP; }
            location /none { set $args ''; proxy_pass http://APP; }
            location /argshow { set $args 'a=1'; return 200 '$args $is_args $arg_a $request_uri'; }
        }",
        r#"
        [[server]]
        listen = "LISTEN"
        location = [
            { path = "/", rewrite = "^ http://example.com/ redirect" },
            { path = "/add", rewrite = "^ http://example.com/?c=d redirect" },
            { path = "/no", rewrite = "^ http://example.com/?c=d? redirect" },
            { path = "/off", rewrite = "^/off/(.*)$ /show/$1? last" },
            { path = "/own", rewrite = "^/own/(.*)$ /show/?own=$1 last" },
            { path = "/only", rewrite = "^/only/(.*)$ /show/?own=$1? last" },
            { path = "/two", rewrite = "^/two/(?<first>[^/]*)/(.*)$ /show/$2?f=$first&s=$2 last" },
            { path = "/show", return = "200 '$uri|$args|$is_args|$request_uri|$query_string|$arg_own'" },
            { path = "/pass", rewrite = "^/pass/(.*)$ /new/$1?x=$1 break", proxy_pass = "http://APP" },
            { path = "/args", set = { args = "new=$arg_own" }, proxy_pass = "http://APP" },
            { path = "/none", set = { args = "" }, proxy_pass = "http://APP" },
            { path = "/argshow", set = { args = "a=1" }, return = "200 '$args $is_args $arg_a $request_uri'" },
        ]
        "#,
    )
    .expect(&[
        ("/", "302 -> http://example.com/"),
        ("/?a=b", "302 -> http://example.com/?a=b"),
        ("/add", "302 -> http://example.com/?c=d"),
        ("/add?a=b", "302 -> http://example.com/?c=d&a=b"),
        ("/no?a=b", "302 -> http://example.com/?c=d"),
        ("/off/x?a=b", "200 /show/x|||/off/x?a=b||"),
        ("/own/x?a=b", "200 /show/|own=x&a=b|?|/own/x?a=b|own=x&a=b|x"),
        ("/own/x", "200 /show/|own=x|?|/own/x|own=x|x"),
        ("/only/x?a=b", "200 /show/|own=x|?|/only/x?a=b|own=x|x"),
        ("/two/x/y?a", "200 /show/y|f=x&s=y&a|?|/two/x/y?a|f=x&s=y&a|"),
        ("/pass/x?a", "200 GET /new/x?x=x&a"),
        ("/pass/x?", "200 GET /new/x?x=x"),
        ("/args?own=1", "200 GET /args?new=1"),
        ("/none?own=1", "200 GET /none"),
        ("/argshow?b=2", "200 a=1 ? 1 /argshow?b=2"),
        ("/show?", "200 /show|||/show?||"),
        ("/show?own=a%20b+c&OWN=2", "200 /show|own=a%20b+c&OWN=2|?|/show?own=a%20b+c&OWN=2|own=a%20b+c&OWN=2|a%20b+c"),
    ]);
}

#[test]
fn captures_of_encoded_paths_are_encoded_where_nginx_encodes_them() {
    Pair::start(
        "server { listen LISTEN;
            location /capture { rewrite ^(.*) $1?c=d; return 200 'uri:$uri args:$args'; }
            location /dup { rewrite ^(.*) $1?c=$1; return 200 'uri:$uri args:$args'; }
            location /to { rewrite ^/to/(.*)$ /new/$1 redirect; }
            location /arg { rewrite ^ $arg_r? redirect; }
            location /query { rewrite ^/query/(.*)$ http://example.com/?q=$1 redirect; }
            location /pass { rewrite ^/pass/(.*)$ /new/$1 break; proxy_pass http://APP; }
            location /set { rewrite ^/set/(.*)$ /$1 break; set $x $1; return 200 '$x $1'; }
            location /if { if ($uri ~ ^/if/(.*)$) { set $x $1; return 200 '$x $1'; } }
            location ~ ^/re/(.*)$ { return 200 '$1'; }
            location ~ ^/reset/(.*)$ { set $x $1; return 200 '$x'; }
            location /url { return 302 http://example.com$uri; }
            location /asked { return 302 http://example.com$request_uri; }
            location /static { rewrite ^ /a%20b%2Fc%3Fd%41 redirect; }
            location ~ ^/(?<user>[^/]+)/named/(?<rest>.*)$ { rewrite ^ /new/$user/$rest break; proxy_pass http://APP; }
        }",
        r#"
        [[server]]
        listen = "LISTEN"
        location = [
            { path = "/capture", rewrite = [ { rewrite = "^(.*) $1?c=d", return = "200 'uri:$uri args:$args'" } ] },
            { path = "/dup", rewrite = "^(.*) $1?c=$1", return = "200 'uri:$uri args:$args'" },
            { path = "/to", rewrite = "^/to/(.*)$ /new/$1 redirect" },
            { path = "/arg", rewrite = "^ $arg_r? redirect" },
            { path = "/query", rewrite = "^/query/(.*)$ http://example.com/?q=$1 redirect" },
            { path = "/pass", rewrite = "^/pass/(.*)$ /new/$1 break", proxy_pass = "http://APP" },
            { path = "/set", rewrite = "^/set/(.*)$ /$1 break", return = "200 '$x $1'" },
            { path = "/if", rewrite = [{ if = "$uri ~ ^/if/(.*)$", set = { x = "$1" }, return = "200 '$x $1'" }] },
            { path = "~ ^/re/(.*)$", return = "200 '$1'" },
            { path = "~ ^/reset/(.*)$", set = { x = "$1" }, return = "200 '$x'" },
            { path = "/url", return = "302 http://example.com$uri" },
            { path = "/asked", return = "302 http://example.com$request_uri" },
            { path = "/static", rewrite = "^ /a%20b%2Fc%3Fd%41 redirect" },
            { path = "~ ^/(?<user>[^/]+)/named/(?<rest>.*)$", rewrite = "^ /new/$user/$rest break", proxy_pass = "http://APP" },
        ]
        "#,
    )
    .expect(&[
        ("/capture/%25?a=b", "200 uri:/capture/% args:c=d&a=b"),
        ("/dup/%25?a=b", "200 uri:/dup/% args:c=/dup/%25&a=b"),
        ("/dup/a+b", "200 uri:/dup/a+b args:c=/dup/a%2Bb"),
        ("/dup/%C3%BC%20x", "200 uri:/dup/ü x args:c=/dup/%C3%BC%20x"),
        ("/to/a%20b", "302 -> http://a:PORT/new/a%20b"),
        ("/to/a%3Fb", "302 -> http://a:PORT/new/a?b"),
        ("/to/a%26b%2Bc", "302 -> http://a:PORT/new/a&b+c"),
        ("/arg?r=http%3A%2F%2Fexample.com%2F%3Ffrom", "302 -> http://example.com/?from"),
        ("/query/a%20b%26c", "302 -> http://example.com/?q=a%20b%26c"),
        ("/query/a&b", "302 -> http://example.com/?q=a&b"),
        ("/pass/a%20b%3Fc%2Bd", "200 GET /new/a%20b%3Fc+d"),
        ("/pass/a%2520b", "200 GET /new/a%2520b"),
        ("/if/a%20b", "200 a%20b a b"),
        ("/if/ab", "200 ab ab"),
        ("/re/a%20b", "200 a b"),
        ("/reset/a%20b", "200 a%20b"),
        ("/url/a%20b", "302 -> http://example.com/url/a b"),
        ("/asked/a%20b?c", "302 -> http://example.com/asked/a%20b?c"),
        ("/static", "302 -> http://a:PORT/a%20b/c?d%41"),
        ("/u%20s/named/r%3Fs", "200 GET /new/u%20s/r%3Fs"),
    ]);
}

#[test]
fn a_return_answers_in_all_its_forms() {
    Pair::start(
        "server { listen LISTEN;
            location /204 { return 204; }
            location /200 { return 200; }
            location /text { return 200 'hello $arg_name'; }
            location /empty { return 200 ''; }
            location /relative { return 301 /new$is_args$args; }
            location /absolute { return 301 https://$host$request_uri; }
            location /302 { return 302 /new; }
            location /303 { return 303 /new; }
            location /307 { return 307 /new; }
            location /308 { return 308 /new; }
            location /bare { return 302 new; }
            location /url { return http://example.com/; }
            location /scheme { return $scheme://example.com$uri; }
            location /300 { return 300 'choose'; }
            location /306 { return 306; }
            location /404 { return 404; }
            location /404text { return 404 'gone'; }
            location /444 { return 444; }
            location /500 { return 500; }
            location /502text { return 502 'down'; }
            location /noslash { absolute_redirect off; return 301 /new; }
            location /noport { port_in_redirect off; return 301 /new; }
            location /server { rewrite ^ /text?name=x last; }
        }",
        r#"
        [[server]]
        listen = "LISTEN"
        location = [
            { path = "/204", return = "204" },
            { path = "/200", return = "200" },
            { path = "/text", return = "200 'hello $arg_name'" },
            { path = "/empty", return = "200 ''" },
            { path = "/relative", return = "301 /new$is_args$args" },
            { path = "/absolute", return = "301 https://$host$request_uri" },
            { path = "/302", return = "302 /new" },
            { path = "/303", return = "303 /new" },
            { path = "/307", return = "307 /new" },
            { path = "/308", return = "308 /new" },
            { path = "/bare", return = "302 new" },
            { path = "/url", return = "http://example.com/" },
            { path = "/scheme", return = "$scheme://example.com$uri" },
            { path = "/300", return = "300 choose" },
            { path = "/306", return = "306" },
            { path = "/404", return = "404" },
            { path = "/404text", return = { status = 404, text = "gone" } },
            { path = "/444", return = "444" },
            { path = "/500", return = "500" },
            { path = "/502text", return = "502 down" },
            { path = "/noslash", absolute_redirect = false, return = "301 /new" },
            { path = "/noport", port_in_redirect = false, return = "301 /new" },
            { path = "/server", rewrite = "^ /text?name=x last" },
        ]
        "#,
    )
    .expect(&[
        ("/204", "204"),
        ("/200", "200"),
        ("/text?name=you", "200 hello you"),
        ("/empty", "200"),
        ("/relative?a=b", "301 -> http://a:PORT/new?a=b"),
        ("/relative", "301 -> http://a:PORT/new"),
        ("/absolute/x?a=b", "301 -> https://a/absolute/x?a=b"),
        ("/302", "302 -> http://a:PORT/new"),
        ("/303", "303 -> http://a:PORT/new"),
        ("/307", "307 -> http://a:PORT/new"),
        ("/308", "308 -> http://a:PORT/new"),
        ("/bare", "302 -> new"),
        ("/url", "302 -> http://example.com/"),
        ("/scheme", "302 -> http://example.com/scheme"),
        ("/300", "300 choose"),
        ("/306", "306"),
        ("/404", "404"),
        ("/404text", "404 gone"),
        ("/444", "closed"),
        ("/500", "500"),
        ("/502text", "502 down"),
        ("/noslash", "301 -> /new"),
        ("/noport", "301 -> http://a/new"),
        ("/server", "200 hello x"),
        ("/302 Host: B.example", "302 -> http://b.example:PORT/new"),
        ("HEAD /text", "200"),
        ("POST /text Content-Length: 5", "200 hello "),
        ("DELETE /404text", "404 gone"),
    ]);
}

#[test]
fn an_if_asks_what_nginx_asks() {
    let (dir, app) = (Dir::new(), App::start());
    fs::write(dir.join("file"), "").expect("a file can be written");
    fs::create_dir(dir.join("dir")).expect("a directory can be made");
    let conditions = [
        ("true", "$arg_c"),
        ("eq", "$arg_c = 1"),
        ("ne", "$arg_c != 2"),
        ("eqvar", "$arg_c = $arg_d"),
        ("re", "$arg_c ~ foo"),
        ("rei", "$arg_c ~* foo"),
        ("nre", "$arg_c !~ foo"),
        ("nrei", "$arg_c !~* foo"),
        ("f", "-f DIR/$arg_c"),
        ("nf", "!-f DIR/$arg_c"),
        ("d", "-d DIR/$arg_c"),
        ("nd", "!-d DIR/$arg_c"),
        ("e", "-e DIR/$arg_c"),
        ("ne2", "!-e DIR/$arg_c"),
        ("x", "-x DIR/$arg_c"),
        ("nx", "!-x DIR/$arg_c"),
        ("quoted", "$http_x_a = 'b c'"),
        ("method", "$request_method = POST"),
        ("empty", "$arg_c = ''"),
        ("unset", "$http_x_none"),
    ];
    let nginx: String = conditions
        .iter()
        .map(|(name, condition)| {
            format!("location = /{name} {{ if ({condition}) {{ return 200 yes; }} return 200 no; }}\n")
        })
        .collect();
    let toml: String = conditions
        .iter()
        .map(|(name, condition)| {
            format!(
                "[[server.location]]\npath = \"= /{name}\"\nrewrite = [{{ if = \"{condition}\", return = \"200 yes\" }}]\nreturn = \"200 no\"\n"
            )
        })
        .collect();
    let pair = Pair::start_with(
        &app,
        &dir,
        &format!("server {{ listen LISTEN; {nginx} }}"),
        &format!("[[server]]\nlisten = \"LISTEN\"\n{toml}"),
    );
    pair.expect(&[
        ("/true?c=1", "200 yes"),
        ("/true?c=0", "200 no"),
        ("/true?c=", "200 no"),
        ("/true", "200 no"),
        ("/true?c=00", "200 yes"),
        ("/eq?c=1", "200 yes"),
        ("/eq?c=2", "200 no"),
        ("/ne?c=2", "200 no"),
        ("/ne", "200 yes"),
        ("/eqvar?c=a&d=a", "200 yes"),
        ("/eqvar?c=a&d=A", "200 no"),
        ("/eqvar", "200 yes"),
        ("/re?c=food", "200 yes"),
        ("/re?c=FooD", "200 no"),
        ("/rei?c=FooD", "200 yes"),
        ("/nre?c=FooD", "200 yes"),
        ("/nre?c=food", "200 no"),
        ("/nrei?c=FooD", "200 no"),
        ("/nrei?c=bar", "200 yes"),
        ("/f?c=file", "200 yes"),
        ("/f?c=dir", "200 no"),
        ("/f?c=none", "200 no"),
        ("/nf?c=file", "200 no"),
        ("/nf?c=dir", "200 yes"),
        ("/nf?c=none", "200 yes"),
        ("/d?c=dir", "200 yes"),
        ("/d?c=file", "200 no"),
        ("/nd?c=dir", "200 no"),
        ("/nd?c=none", "200 yes"),
        ("/e?c=dir", "200 yes"),
        ("/e?c=file", "200 yes"),
        ("/e?c=none", "200 no"),
        ("/ne2?c=none", "200 yes"),
        ("/x?c=dir", "200 yes"),
        ("/x?c=file", "200 no"),
        ("/nx?c=file", "200 yes"),
        ("/nx?c=dir", "200 no"),
        ("/quoted X-A: b c", "200 yes"),
        ("/quoted X-A: b", "200 no"),
        ("/method", "200 no"),
        ("POST /method Content-Length: 0", "200 yes"),
        ("/empty?c=", "200 yes"),
        ("/empty?c=1", "200 no"),
        ("/empty", "200 yes"),
        ("/unset", "200 no"),
    ]);
}

#[test]
fn steps_are_taken_in_order_in_servers_and_in_locations() {
    Pair::start(
        "server { listen LISTEN;
            set $where server;
            if ($arg_stop) { return 403; }
            rewrite ^/server/(.*)$ /inner/$1;
            rewrite ^/both/(.*)$ /inner/$1 last;
            rewrite ^/broken/(.*)$ /inner/$1 break;
            location / { return 200 'root $where'; }
            location /inner { set $where $where-inner; return 200 '$uri $where'; }
            location /twice { set $n 1; set $n ${n}2; return 200 '$n$where'; }
            location /cond {
                set $ok '';
                if ($arg_a) { set $ok a; }
                if ($arg_b) { set $ok ${ok}b; }
                if ($ok = ab) { return 200 both; }
                return 200 'not both: $ok';
            }
            location /ifrewrite { if ($arg_x) { rewrite ^/ifrewrite(.*)$ /inner$1 last; } return 200 stays; }
            location /unset { return 200 '[$later]'; }
            location /later { set $later 1; return 200 '$later'; }
            location /loop { rewrite ^ /loop last; }
            location /ping { rewrite ^ /pong last; }
            location /pong { rewrite ^ /ping last; }
        }",
        r#"
        [[server]]
        listen = "LISTEN"
        set = { where = "server" }
        rewrite = [
            { if = "$arg_stop", return = "403" },
            "^/server/(.*)$ /inner/$1",
            "^/both/(.*)$ /inner/$1 last",
            "^/broken/(.*)$ /inner/$1 break",
        ]
        [[server.location]]
        path = "/"
        return = "200 'root $where'"
        [[server.location]]
        path = "/inner"
        set = { where = "$where-inner" }
        return = "200 '$uri $where'"
        [[server.location]]
        path = "/twice"
        rewrite = [{ set = { n = "1" } }, { set = { n = "${n}2" } }]
        return = "200 '$n$where'"
        [[server.location]]
        path = "/cond"
        set = { ok = "" }
        rewrite = [
            { if = "$arg_a", set = { ok = "a" } },
            { if = "$arg_b", set = { ok = "${ok}b" } },
            { if = "$ok = ab", return = "200 both" },
        ]
        return = "200 'not both: $ok'"
        [[server.location]]
        path = "/ifrewrite"
        rewrite = [{ if = "$arg_x", rewrite = "^/ifrewrite(.*)$ /inner$1 last" }]
        return = "200 stays"
        [[server.location]]
        path = "/unset"
        return = "200 '[$later]'"
        [[server.location]]
        path = "/later"
        set = { later = "1" }
        return = "200 '$later'"
        [[server.location]]
        path = "/loop"
        rewrite = "^ /loop last"
        [[server.location]]
        path = "/ping"
        rewrite = "^ /pong last"
        [[server.location]]
        path = "/pong"
        rewrite = "^ /ping last"
        "#,
    )
    .expect(&[
        ("/x", "200 root server"),
        ("/x?stop=1", "403"),
        ("/server/x", "200 /inner/x server-inner"),
        ("/both/x", "200 /inner/x server-inner"),
        ("/broken/x", "200 /inner/x server-inner"),
        ("/twice", "200 12server"),
        ("/cond", "200 not both: "),
        ("/cond?a=1", "200 not both: a"),
        ("/cond?b=1", "200 not both: b"),
        ("/cond?a=1&b=1", "200 both"),
        ("/ifrewrite/y", "200 stays"),
        ("/ifrewrite/y?x=1", "200 /inner/y server-inner"),
        ("/unset", "200 []"),
        ("/later", "200 1"),
        ("/loop", "500"),
        ("/ping", "500"),
    ]);
}

#[test]
fn a_map_is_looked_up_as_in_nginx() {
    Pair::start(
        r"map $arg_k $x { default none; foo bar; FOO2 bar2; '' empty; ~^re(\d)(?<tail>.*)$ 're$1-$tail'; ~*^ci 'ci'; \~tilde tilde; 'a b' blank; /p/ path; }
        map $arg_k $nodefault { foo bar; }
        map $arg_k $y { hostnames; default 0; example.com foo; example.* right; *.example.com left; .dot.example.com special;
            ~^REGEX\.EXAMPLE\.ORG$ sensitive; ~*^www\.regex\.example\.org$ insensitive; \default escaped; server $host; other $z; }
        map $arg_k-$x $z { default $x/$arg_k; foo-bar both; }
        map $uri $cached { default $uri; }
        map $uri $fresh { volatile; default $uri; }
        server { listen LISTEN;
            location / { return 200 '$x|$nodefault|$y|$z'; }
            location /moved { set $before $cached/$fresh; rewrite ^ /other last; }
            location /other { return 200 '$before $cached $fresh'; }
            location /to { if ($x = bar) { return 403; } return 200 ok; }
        }",
        r#"
        [[map]]
        source = "$arg_k"
        variable = "x"
        default = "none"
        entries = { foo = "bar", FOO2 = "bar2", "" = "empty", '~^re(\d)(?<tail>.*)$' = "re$1-$tail", "~*^ci" = "ci", '\~tilde' = "tilde", "a b" = "blank", "/p/" = "path" }
        [[map]]
        source = "$arg_k"
        variable = "nodefault"
        entries = { foo = "bar" }
        [[map]]
        source = "$arg_k"
        variable = "y"
        default = "0"
        hostnames = true
        [map.entries]
        "example.com" = "foo"
        "example.*" = "right"
        "*.example.com" = "left"
        ".dot.example.com" = "special"
        '~^REGEX\.EXAMPLE\.ORG$' = "sensitive"
        '~*^www\.regex\.example\.org$' = "insensitive"
        '\default' = "escaped"
        server = "$host"
        other = "$z"
        [[map]]
        source = "$arg_k-$x"
        variable = "z"
        default = "$x/$arg_k"
        entries = { foo-bar = "both" }
        [[map]]
        source = "$uri"
        variable = "cached"
        default = "$uri"
        [[map]]
        source = "$uri"
        variable = "fresh"
        volatile = true
        default = "$uri"

        [[server]]
        listen = "LISTEN"
        location = [
            { path = "/", return = "200 '$x|$nodefault|$y|$z'" },
            { path = "/moved", set = { before = "$cached/$fresh" }, rewrite = "^ /other last" },
            { path = "/other", return = "200 '$before $cached $fresh'" },
            { path = "/to", rewrite = [{ if = "$x = bar", return = "403" }], return = "200 ok" },
        ]
        "#,
    )
    .expect(&[
        ("/?k=foo", "200 bar|bar|0|both"),
        ("/?k=FOO", "200 bar|bar|0|both"),
        ("/?k=foo2", "200 bar2||0|bar2/foo2"),
        ("/", "200 empty||0|empty/"),
        ("/?k=re1x", "200 re1-x||0|re1-x/re1x"),
        ("/?k=RE1x", "200 none||0|none/RE1x"),
        ("/?k=CIx", "200 ci||0|ci/CIx"),
        ("/?k=~tilde", "200 tilde||0|tilde/~tilde"),
        ("/?k=/p/", "200 path||0|path//p/"),
        ("/?k=example.com", "200 none||foo|none/example.com"),
        ("/?k=EXAMPLE.COM", "200 none||foo|none/EXAMPLE.COM"),
        ("/?k=example.com.", "200 none||foo|none/example.com."),
        ("/?k=example.org", "200 none||right|none/example.org"),
        ("/?k=foo.example.com", "200 none||left|none/foo.example.com"),
        ("/?k=a.b.example.com.", "200 none||left|none/a.b.example.com."),
        ("/?k=dot.example.com", "200 none||special|none/dot.example.com"),
        ("/?k=x.dot.example.com", "200 none||special|none/x.dot.example.com"),
        ("/?k=REGEX.EXAMPLE.ORG", "200 none||sensitive|none/REGEX.EXAMPLE.ORG"),
        ("/?k=regex.example.org", "200 none||0|none/regex.example.org"),
        ("/?k=WWW.regex.example.org", "200 none||insensitive|none/WWW.regex.example.org"),
        ("/?k=default", "200 none||escaped|none/default"),
        ("/?k=server", "200 none||a|none/server"),
        ("/?k=other", "200 none||none/other|none/other"),
        ("/moved", "200 /moved//moved /moved /other"),
        ("/to?k=foo", "403"),
        ("/to", "200 ok"),
    ]);
}

#[test]
fn error_pages_answer_as_in_nginx() {
    Pair::start(
        "server { listen LISTEN;
            location = /page { return 200 'page $uri $args $request_uri $request_method'; }
            location = /page404 { return 404 'inner'; }
            location = /204 { return 204; }
            location = /405 { return 405; }
            location = /to { return 302 /elsewhere; }
            location /404 { error_page 404 /page; return 404; }
            location /query { error_page 404 /page?from=$uri; return 404; }
            location /200 { error_page 404 =200 /page; return 404; }
            location /own { error_page 404 = /page; return 404; }
            location /own404 { error_page 404 = /page404; return 404; }
            location /keep { error_page 404 =410 /page404; return 404; }
            location /405to204 { error_page 405 /204; return 405; }
            location /url { error_page 404 http://example.com/; return 404; }
            location /url301 { error_page 404 =301 http://example.com/$arg_x; return 404; }
            location /url200 { error_page 404 =200 http://example.com/; return 404; }
            location /named { error_page 404 @named; return 404; }
            location /named200 { error_page 404 = @named; return 404; }
            location /namedfixed { error_page 404 =201 @named; return 404; }
            location @named { return 200 'named $uri $args $request_method'; }
            location /proxied { error_page 404 = @proxied; return 404; }
            location @proxied { proxy_pass http://APP; }
            location /proxieduri { error_page 404 = /up/x; return 404; }
            location /up { proxy_pass http://APP; }
            location /302 { error_page 302 /page; return 302 first; }
            location /302url { error_page 302 http://example.com/; return 302 first; }
            location /to302 { error_page 404 /to; return 404; }
            location /to302own { error_page 404 = /to; return 404; }
            location /rewritten { error_page 404 /re; return 404; }
            location /re { rewrite ^ /page last; }
            location /many { error_page 403 404 =200 /page; error_page 500 502 /204; if ($arg_s = 403) { return 403; } if ($arg_s = 500) { return 500; } return 404; }
            location /missing { error_page 404 /not/there; return 404; }
            location /text { error_page 404 /page; return 404 'text'; }
            location /internal { internal; return 200 'internal $uri'; }
            location /tointernal { error_page 404 =200 /internal; return 404; }
            location /reinternal { rewrite ^ /internal last; }
            location /twice { error_page 404 /twice2; return 404; }
            location /twice2 { error_page 403 /page; return 403; }
            location /recursive { recursive_error_pages on; error_page 404 /recursive2; return 404; }
            location /recursive2 { error_page 403 /page; return 403; }
            location /endless { recursive_error_pages on; error_page 404 /endless; return 404; }
        }",
        r#"
        [[server]]
        listen = "LISTEN"
        location = [
            { path = "= /page", return = "200 'page $uri $args $request_uri $request_method'" },
            { path = "= /page404", return = "404 inner" },
            { path = "= /204", return = "204" },
            { path = "= /405", return = "405" },
            { path = "= /to", return = "302 /elsewhere" },
            { path = "/404", error_page = "404 /page", return = "404" },
            { path = "/query", error_page = "404 /page?from=$uri", return = "404" },
            { path = "/200", error_page = "404 =200 /page", return = "404" },
            { path = "/own", error_page = "404 = /page", return = "404" },
            { path = "/own404", error_page = "404 = /page404", return = "404" },
            { path = "/keep", error_page = "404 =410 /page404", return = "404" },
            { path = "/405to204", error_page = "405 /204", return = "405" },
            { path = "/url", error_page = "404 http://example.com/", return = "404" },
            { path = "/url301", error_page = "404 =301 http://example.com/$arg_x", return = "404" },
            { path = "/url200", error_page = "404 =200 http://example.com/", return = "404" },
            { path = "/named", error_page = "404 @named", return = "404" },
            { path = "/named200", error_page = "404 = @named", return = "404" },
            { path = "/namedfixed", error_page = "404 =201 @named", return = "404" },
            { path = "@named", return = "200 'named $uri $args $request_method'" },
            { path = "/proxied", error_page = "404 = @proxied", return = "404" },
            { path = "@proxied", proxy_pass = "http://APP" },
            { path = "/proxieduri", error_page = "404 = /up/x", return = "404" },
            { path = "/up", proxy_pass = "http://APP" },
            { path = "/302", error_page = "302 /page", return = "302 first" },
            { path = "/302url", error_page = "302 http://example.com/", return = "302 first" },
            { path = "/to302", error_page = "404 /to", return = "404" },
            { path = "/to302own", error_page = "404 = /to", return = "404" },
            { path = "/rewritten", error_page = "404 /re", return = "404" },
            { path = "/re", rewrite = "^ /page last" },
            { path = "/many", error_page = ["403 404 =200 /page", "500 502 /204"], rewrite = [{ if = "$arg_s = 403", return = "403" }, { if = "$arg_s = 500", return = "500" }], return = "404" },
            { path = "/missing", error_page = "404 /not/there", return = "404" },
            { path = "/text", error_page = "404 /page", return = "404 text" },
            { path = "/internal", internal = true, return = "200 'internal $uri'" },
            { path = "/tointernal", error_page = "404 =200 /internal", return = "404" },
            { path = "/reinternal", rewrite = "^ /internal last" },
            { path = "/twice", error_page = "404 /twice2", return = "404" },
            { path = "/twice2", error_page = "403 /page", return = "403" },
            { path = "/recursive", recursive_error_pages = true, error_page = "404 /recursive2", return = "404" },
            { path = "/recursive2", error_page = "403 /page", return = "403" },
            { path = "/endless", recursive_error_pages = true, error_page = "404 /endless", return = "404" },
        ]
        "#,
    )
    .expect(&[
        ("/404/x?q", "404 page /page  /404/x?q GET"),
        ("/query/x?q", "404 page /page from=/query/x /query/x?q GET"),
        ("/200", "200 page /page  /200 GET"),
        ("/own", "200 page /page  /own GET"),
        ("/own404", "404 inner"),
        ("/keep", "410 inner"),
        ("/405to204", "405"),
        ("/url", "302 -> http://example.com/"),
        ("/url301?x=y", "301 -> http://example.com/y"),
        ("/url200", "302 -> http://example.com/"),
        ("/named/x?q", "404 named /named/x q GET"),
        ("/named200/x?q", "200 named /named200/x q GET"),
        ("/namedfixed", "201 named /namedfixed  GET"),
        ("/proxied/x?q", "200 GET /proxied/x?q"),
        ("/proxieduri?q", "200 GET /up/x"),
        ("/302", "302 -> first page /page  /302 GET"),
        ("/302url", "302 -> http://example.com/"),
        ("/to302", "302 -> http://a:PORT/elsewhere"),
        ("/to302own", "302 -> http://a:PORT/elsewhere"),
        ("/rewritten", "404 page /page  /rewritten GET"),
        ("/many", "200 page /page  /many GET"),
        ("/many?s=403", "200 page /page  /many?s=403 GET"),
        ("/many?s=500", "500"),
        ("/missing", "404"),
        ("/text", "404 text"),
        ("/internal", "404"),
        ("/tointernal", "200 internal /internal"),
        ("/reinternal", "200 internal /internal"),
        ("/twice", "403"),
        ("/recursive", "403 page /page  /recursive GET"),
        ("/endless", "500"),
        ("POST /404 Content-Length: 5", "404 page /page  /404 GET"),
        ("POST /named Content-Length: 5", "404 named /named  POST"),
        ("POST /proxied Content-Length: 5", "200 POST /proxied hello"),
        ("HEAD /proxieduri", "200"),
    ]);
}

#[test]
fn answers_of_the_upstream_are_intercepted_only_if_asked_for() {
    Pair::start(
        "server { listen LISTEN;
            proxy_intercept_errors on;
            error_page 401 404 500 /page;
            error_page 502 =200 @down;
            error_page 302 /page;
            location / { proxy_pass http://APP; }
            location /off/ { proxy_intercept_errors off; proxy_pass http://APP/; }
            location /gone { error_page 502 =200 @down; proxy_pass http://127.0.0.1:1; }
            location /goneoff { proxy_intercept_errors off; error_page 502 =503 /page; proxy_pass http://127.0.0.1:1; }
            location /page { return 200 page; }
            location @down { return 200 'down $uri'; }
            location /chain/ { error_page 404 = @second; proxy_pass http://APP/; }
            location @second { error_page 404 /page; proxy_pass http://APP; }
            location /rec/ { recursive_error_pages on; error_page 404 = @third; proxy_pass http://APP/; }
            location @third { error_page 404 /page; proxy_pass http://APP; }
            location /status/404/rec/ { return 404; }
        }",
        r#"
        [[server]]
        listen = "LISTEN"
        proxy_intercept_errors = true
        error_page = ["401 404 500 /page", "502 =200 @down", "302 /page"]
        location = [
            { path = "/", proxy_pass = "http://APP" },
            { path = "/off/", proxy_intercept_errors = false, proxy_pass = "http://APP/" },
            { path = "/gone", error_page = "502 =200 @down", proxy_pass = "http://127.0.0.1:1" },
            { path = "/goneoff", proxy_intercept_errors = false, error_page = "502 =503 /page", proxy_pass = "http://127.0.0.1:1" },
            { path = "/page", return = "200 page" },
            { path = "@down", return = "200 'down $uri'" },
            { path = "/chain/", error_page = "404 = @second", proxy_pass = "http://APP/" },
            { path = "@second", error_page = "404 /page", proxy_pass = "http://APP" },
            { path = "/rec/", recursive_error_pages = true, error_page = "404 = @third", proxy_pass = "http://APP/" },
            { path = "@third", error_page = "404 /page", proxy_pass = "http://APP" },
            { path = "/status/404/rec/", return = "404" },
        ]
        "#,
    )
    .expect(&[
        ("/status/404", "404 page"),
        ("/status/500", "500 page"),
        ("/status/401", "401 page"),
        ("/status/302", "302 page"),
        ("/status/403", "403 GET /status/403"),
        ("/status/200", "200 GET /status/200"),
        ("/off/status/404", "404 GET /status/404"),
        ("/status/502/x", "200 down /status/502/x"),
        ("/gone/x", "200 down /gone/x"),
        ("/goneoff/x", "503 page"),
        ("/chain/status/404", "200 GET /chain/status/404"),
        ("/rec/status/404", "200 GET /rec/status/404"),
        ("/rec/x", "200 GET /x"),
    ]);
}

#[test]
fn locations_are_found_as_in_nginx_nested_ones_too() {
    Pair::start(
        r"server { listen LISTEN;
            location = / { return 200 'exactly root'; }
            location / { return 200 root; }
            location ^~ /images/ { return 200 images; }
            location ~* \.(gif|jpg|jpeg)$ { return 200 regex; }
            location ~ casefull { return 200 casefull; }
            location = /foo { return 200 '/foo exact'; }
            location /foo { return 200 '/foo prefix'; }
            location = /foo/ { return 200 '/foo/ exact'; }
            location /foo/ { return 200 '/foo/ prefix'; }
            location /lower { return 200 lower; }
            location /UPPER { return 200 upper; }
            location '/with space/' { return 200 'space $uri'; }
            location /outer/ {
                location /outer/inner/ { return 200 'inner'; location ~ \.js$ { return 200 'inner js'; } }
                location = /outer/exact { return 200 'outer exact'; }
                location ~ \.css$ { return 200 'outer css'; }
                return 200 'outer';
            }
            location ~ ^/re/(.+)$ { location ~ \.js$ { return 200 're js'; } return 200 're $1'; }
            location ~ \.js$ { return 200 'any js'; }
            location /plain/ { set $v outer; location /plain/inner { return 200 'v:$v'; } }
        }",
        r#"
        [[server]]
        listen = "LISTEN"
        location = [
            { path = "= /", return = "200 'exactly root'" },
            { path = "/", return = "200 root" },
            { path = "^~ /images/", return = "200 images" },
            { path = '~* \.(gif|jpg|jpeg)$', return = "200 regex" },
            { path = "~ casefull", return = "200 casefull" },
            { path = "= /foo", return = "200 '/foo exact'" },
            { path = "/foo", return = "200 '/foo prefix'" },
            { path = "= /foo/", return = "200 '/foo/ exact'" },
            { path = "/foo/", return = "200 '/foo/ prefix'" },
            { path = "/lower", return = "200 lower" },
            { path = "/UPPER", return = "200 upper" },
            { path = "/with space/", return = "200 'space $uri'" },
            { path = "/outer/", return = "200 outer", location = [
                { path = "/outer/inner/", return = "200 inner", location = [{ path = '~ \.js$', return = "200 'inner js'" }] },
                { path = "= /outer/exact", return = "200 'outer exact'" },
                { path = '~ \.css$', return = "200 'outer css'" },
            ] },
            { path = "~ ^/re/(.+)$", return = "200 're $1'", location = [
                { path = '~ \.js$', return = "200 're js'" },
            ] },
            { path = '~ \.js$', return = "200 'any js'" },
            { path = "/plain/", set = { v = "outer" }, location = [{ path = "/plain/inner", return = "200 'v:$v'" }] },
        ]
        "#,
    )
    .expect(&[
        ("/", "200 exactly root"),
        ("/?x", "200 exactly root"),
        ("/x", "200 root"),
        ("/images/t.gif", "200 images"),
        ("/t.gif", "200 regex"),
        ("/t.GIF", "200 regex"),
        ("/casefull/t.gif", "200 regex"),
        ("/casefull/", "200 casefull"),
        ("/CASEFULL/", "200 root"),
        ("/foo", "200 /foo exact"),
        ("/foobar", "200 /foo prefix"),
        ("/foo/", "200 /foo/ exact"),
        ("/foo/bar", "200 /foo/ prefix"),
        ("/foo//", "200 /foo/ exact"),
        ("/x/../foo/./bar", "200 /foo/ prefix"),
        ("/%66oo", "200 /foo exact"),
        ("/lower", "200 lower"),
        ("/LOWER", "200 root"),
        ("/UPPER", "200 upper"),
        ("/with%20space/x", "200 space /with space/x"),
        ("/outer/", "200 outer"),
        ("/outer/inner/x", "200 inner"),
        ("/outer/inner/x.js", "200 inner js"),
        ("/outer/inner/x.css", "200 outer css"),
        ("/outer/x.js", "200 any js"),
        ("/outer/exact", "200 outer exact"),
        ("/re/y", "200 re y"),
        ("/re/y.js", "200 re js"),
        ("/plain/inner", "200 v:"),
    ]);
}

#[test]
fn a_path_that_lacks_its_slash_is_redirected_as_by_nginx() {
    Pair::start(
        r#"server { listen LISTEN; server_name on; error_page 400 /return301;
            location / { return 200 root; }
            location /auto/ { proxy_pass http://APP; }
            location '/auto sp/' { proxy_pass http://APP; }
            location /auto-b { return 200 b; }
            location ^~ /final/ { proxy_pass http://APP; }
            location = /eq/ { proxy_pass http://APP; }
            location /both/ { proxy_pass http://APP; }
            location = /both { return 200 own; }
            location /static/ { return 200 static; }
            location ~ ^/au { return 200 regex; }
            location /name/ { proxy_pass http://APP; server_name_in_redirect on; }
            location /port/ { proxy_pass http://APP; port_in_redirect off; }
            location /outer { location /outer/in/ { proxy_pass http://APP; } return 200 outer; }
        }
        server { listen LISTEN; server_name off; absolute_redirect off;
            location /auto/ { proxy_pass http://APP; }
            location /return { return 301 /redirect; }
            location /rewrite { rewrite ^ /redirect?a redirect; }
        }"#,
        r#"
        [[server]]
        listen = "LISTEN"
        server_name = "on"
        location = [
            { path = "/", return = "200 root" },
            { path = "/auto/", proxy_pass = "http://APP" },
            { path = "/auto sp/", proxy_pass = "http://APP" },
            { path = "/auto-b", return = "200 b" },
            { path = "^~ /final/", proxy_pass = "http://APP" },
            { path = "= /eq/", proxy_pass = "http://APP" },
            { path = "/both/", proxy_pass = "http://APP" },
            { path = "= /both", return = "200 own" },
            { path = "/static/", return = "200 static" },
            { path = "~ ^/au", return = "200 regex" },
            { path = "/name/", proxy_pass = "http://APP", server_name_in_redirect = true },
            { path = "/port/", proxy_pass = "http://APP", port_in_redirect = false },
            { path = "/outer", return = "200 outer", location = [{ path = "/outer/in/", proxy_pass = "http://APP" }] },
        ]
        [[server]]
        listen = "LISTEN"
        server_name = "off"
        absolute_redirect = false
        location = [
            { path = "/auto/", proxy_pass = "http://APP" },
            { path = "/return", return = "301 /redirect" },
            { path = "/rewrite", rewrite = "^ /redirect?a redirect" },
        ]
        "#,
    )
    .expect(&[
        ("/auto", "301 -> http://a:PORT/auto/"),
        ("/auto?a=b", "301 -> http://a:PORT/auto/?a=b"),
        ("/auto Host: on", "301 -> http://on:PORT/auto/"),
        ("/auto%20sp?a=b", "301 -> http://a:PORT/auto%20sp/?a=b"),
        ("/auto/", "200 regex"),
        ("/auto-b", "200 regex"),
        ("/final", "301 -> http://a:PORT/final/"),
        ("/final/x", "200 GET /final/x"),
        ("/eq", "301 -> http://a:PORT/eq/"),
        ("/both", "200 own"),
        ("/static", "200 root"),
        ("/name", "301 -> http://on:PORT/name/"),
        ("/port", "301 -> http://a/port/"),
        ("/outer/in", "301 -> http://a:PORT/outer/in/"),
        ("POST /final Content-Length: 0", "301 -> http://a:PORT/final/"),
        ("/auto Host: off", "301 -> /auto/"),
        ("/auto?a=b Host: off", "301 -> /auto/?a=b"),
        ("/return Host: off", "301 -> /redirect"),
        ("/rewrite?b Host: off", "302 -> /redirect?a&b"),
    ]);
}

#[test]
fn servers_are_found_by_name_and_expressions_leave_their_groups() {
    Pair::start(
        r#"server_names_hash_bucket_size 64;
        server { listen LISTEN; server_name localhost; return 200 $server_name; }
        server { listen LISTEN; server_name ''; return 200 'no name'; }
        server { listen LISTEN; server_name www.example.com; return 200 $server_name; }
        server { listen LISTEN; server_name ~^EXAMPLE\.COM$; return 200 $server_name; }
        server { listen LISTEN; server_name "~^(?P<name>[a-z]+)\Q.example.com\E$"; return 200 '$name $1'; }
        server { listen LISTEN; server_name "~^(?<name>www\p{N}+)\.example\.com$"; location / { return 200 '$name'; } }
        server { listen LISTEN; server_name many.example.com many2.example.com; return 200 $server_name; }
        server { listen LISTEN; server_name *.wc.example.com; return 200 $server_name; }
        server { listen LISTEN; server_name *.pref.wc.example.com; return 200 $server_name; }
        server { listen LISTEN; server_name wc2.example.*; return 200 $server_name; }
        server { listen LISTEN; server_name wc2.example.com.*; return 200 $server_name; }
        server { listen LISTEN; server_name .dot.example.com; return 200 $server_name; }
        server { listen LISTEN; server_name ~^(.+)\.pass\.example$; location / { rewrite ^/x(.*)$ /y$1 break; proxy_set_header X-Of $1; proxy_pass http://APP; } }
        "#,
        r#"
        [[server]]
        listen = "LISTEN"
        server_name = "localhost"
        return = "200 $server_name"
        [[server]]
        listen = "LISTEN"
        server_name = ""
        return = "200 'no name'"
        [[server]]
        listen = "LISTEN"
        server_name = "www.example.com"
        return = "200 $server_name"
        [[server]]
        listen = "LISTEN"
        server_name = '~^EXAMPLE\.COM$'
        return = "200 $server_name"
        [[server]]
        listen = "LISTEN"
        server_name = '~^(?P<name>[a-z]+)\Q.example.com\E$'
        return = "200 '$name $1'"
        [[server]]
        listen = "LISTEN"
        server_name = '~^(?<name>www\p{N}+)\.example\.com$'
        location = [{ path = "/", return = "200 '$name'" }]
        [[server]]
        listen = "LISTEN"
        server_name = ["many.example.com", "many2.example.com"]
        return = "200 $server_name"
        [[server]]
        listen = "LISTEN"
        server_name = "*.wc.example.com"
        return = "200 $server_name"
        [[server]]
        listen = "LISTEN"
        server_name = "*.pref.wc.example.com"
        return = "200 $server_name"
        [[server]]
        listen = "LISTEN"
        server_name = "wc2.example.*"
        return = "200 $server_name"
        [[server]]
        listen = "LISTEN"
        server_name = "wc2.example.com.*"
        return = "200 $server_name"
        [[server]]
        listen = "LISTEN"
        server_name = ".dot.example.com"
        return = "200 $server_name"
        [[server]]
        listen = "LISTEN"
        server_name = '~^(.+)\.pass\.example$'
        location = [{ path = "/", rewrite = "^/x(.*)$ /y$1 break", proxy_set_header = { X-Of = "$1" }, proxy_pass = "http://APP" }]
        "#,
    )
    .expect(&[
        ("/ Host: xxx", "200 localhost"),
        ("/ Host: www.example.com", "200 www.example.com"),
        ("/ Host: WWW.EXAMPLE.COM", "200 www.example.com"),
        ("/ Host: www.example.com.", "200 www.example.com"),
        ("/ Host: www.example.com:8080", "200 www.example.com"),
        ("/ Host: example.com", r"200 ~^EXAMPLE\.COM$"),
        ("/ Host: EXAMPLE.COM", r"200 ~^EXAMPLE\.COM$"),
        ("/ Host: blah.example.com", "200 blah blah"),
        ("/ Host: BLAH.EXAMPLE.COM", "200 blah blah"),
        ("/ Host: WWW01.example.com", "200 www01"),
        ("/ Host: many2.example.com", "200 many.example.com"),
        ("/ Host: www.wc.example.com", "200 *.wc.example.com"),
        ("/ Host: www.pref.wc.example.com", "200 *.pref.wc.example.com"),
        ("/ Host: wc2.example.net", "200 wc2.example.*"),
        ("/ Host: wc2.example.com.pref", "200 wc2.example.com.*"),
        ("/ Host: www.dot.example.com", "200 dot.example.com"),
        ("/ Host: dot.example.com", "200 dot.example.com"),
        ("/x/z Host: user.pass.example", "200 GET /y/z X-Of:/z"),
        ("/w Host: user.pass.example", "200 GET /w"),
    ]);
}

#[test]
fn a_body_that_nobody_wants_is_not_taken_for_the_next_request() {
    let hopgate = Hopgate::start(
        r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0"
        location = [{ path = "/", return = "200 $uri" }]
        "#,
    );
    let mut client = hopgate.connect();
    client.send("POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 38\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.expect_status(200).text(), "/first");
    client.send("123GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.expect_status(200).text(), "/second");

    client.send("POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.expect_status(200).head.expect(&["Connection: close"]);
    client.send_if_open("0\r\n\r\n");
    client.finish();
    client.expect_eof();
}

#[test]
fn what_a_rewrite_puts_together_is_a_target_or_refused() {
    let app = App::start();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        forwarded_headers = "pass"
        [[server]]
        listen = "127.0.0.1:0"
        location = [
            {{ path = "/query", rewrite = "^ /x?uri=$uri&of=$http_x_of break", proxy_pass = "http://{0}" }},
            {{ path = "/bare", rewrite = "^/bare(.*)$ $1 break", proxy_pass = "http://{0}" }},
            {{ path = "/out", rewrite = "^/out(.*)$ /app/..$1 break", proxy_pass = "http://{0}" }},
        ]
        "#,
        app.addr
    ));
    // nginx would let the client write lines of its own, send `GET x`, or lead out of where it was sent.
    for (request, answer) in [
        ("/query/%0D%0AX-Bad:%20y X-Of: a b", "200 GET /x?uri=/query/%0D%0AX-Bad:%20y&of=a%20b X-Of:a b"),
        ("/barex", "500"),
        ("/bare/x", "200 GET /x"),
        ("/out/x", "500"),
    ] {
        assert_eq!(ask(&hopgate.addr().to_string(), request), answer, "{request}");
    }
}

#[test]
fn what_an_error_page_has_made_a_get_of_has_no_body() {
    let app = App::start();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        forwarded_headers = "pass"
        [[server]]
        listen = "127.0.0.1:0"
        location = [
            {{ path = "/", error_page = "405 = /up", return = "405" }},
            {{ path = "/up", proxy_pass = "http://{}" }},
        ]
        "#,
        app.addr
    ));
    // nginx would send the body along with the GET.
    assert_eq!(ask(&hopgate.addr().to_string(), "POST /x Content-Length: 5"), "200 GET /up");
}

#[test]
fn an_error_page_gets_the_body_that_the_first_upstream_did_not() {
    let (refusing, other) = (Upstream::refusing(), Upstream::listen());
    let hopgate = with_fallback(refusing.addr(), other.addr());
    let mut client = hopgate.connect();
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let mut server = other.accept();
    server.expect_head("POST /x HTTP/1.1", &["Content-Length: 5"]);
    server.expect("hello");
    server.respond("instead");
    assert_eq!(client.expect_status(200).text(), "instead");
    client.send("GET /y HTTP/1.1\r\nHost: a\r\n\r\n");
    server.expect_head("GET /y HTTP/1.1", &[]);
    server.respond("again");
    assert_eq!(client.expect_status(200).text(), "again");
}

#[test]
fn a_body_that_an_upstream_has_swallowed_is_gone() {
    let (first, other) = (Upstream::listen(), Upstream::listen());
    let hopgate = with_fallback(first.addr(), other.addr());
    let mut client = hopgate.connect();
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let mut server = first.accept();
    server.expect_head("POST /x HTTP/1.1", &[]);
    server.expect("hello");
    server.close();
    client.expect_status(502);
    other.expect_no_connection(&hopgate);
    hopgate.wait_for_log("it cannot be sent again");
}

#[track_caller]
fn with_fallback(first: &str, other: &str) -> Hopgate {
    Hopgate::start(&format!(
        r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0"
        location = [
            {{ path = "/", proxy_pass = "http://{first}", error_page = "502 = @other" }},
            {{ path = "@other", proxy_pass = "http://{other}" }},
        ]
        "#
    ))
}

#[test]
fn a_step_goes_to_a_named_location_as_an_error_page_of_nginx_does() {
    Pair::start(
        "server { listen LISTEN;
            location / { error_page 418 = @app; if ($arg_app) { return 418; } return 200 'own'; }
            location @app { proxy_pass http://APP; }
            location /chat { error_page 418 = @re; return 418; }
            location @re { rewrite ^/chat(.*)$ /new$1 break; proxy_pass http://APP; }
            location /back { error_page 418 = @back; return 418; }
            location @back { rewrite ^ /chat/x last; }
        }",
        r#"
        [[server]]
        listen = "LISTEN"
        location = [
            { path = "/", rewrite = [{ if = "$arg_app", goto = "@app" }], return = "200 own" },
            { path = "@app", proxy_pass = "http://APP" },
            { path = "/chat", rewrite = [{ goto = "@re" }] },
            { path = "@re", rewrite = "^/chat(.*)$ /new$1 break", proxy_pass = "http://APP" },
            { path = "/back", rewrite = [{ goto = "@back" }] },
            { path = "@back", rewrite = "^ /chat/x last" },
        ]
        "#,
    )
    .expect(&[
        ("/x", "200 own"),
        ("/x?app=1", "200 GET /x?app=1"),
        ("POST /x?app=1 Content-Length: 5", "200 POST /x?app=1 hello"),
        ("/chat/y?a", "200 GET /new/y?a"),
    ]);
}

#[test]
fn what_is_sent_on_after_a_rewrite_is_what_nginx_sends() {
    Pair::start(
        r#"map $uri $old { ~^/old/(?<page>\d+)$ /new/$page; default ''; }
        server { listen LISTEN;
            location / { return 200 'root $uri'; }
            location /last/ { rewrite ^/last/(.*)$ /api/$1 last; }
            location /plain/ { rewrite ^/plain/(.*)$ /app/$1 last; }
            location /api/ { proxy_pass http://APP/v1/; }
            location /app/ { proxy_pass http://APP; }
            location /enc { rewrite ^ /a%20b%2f break; proxy_pass http://APP; }
            location /space { rewrite ^ '/a b?c+d' break; proxy_pass http://APP; }
            location /slashes { rewrite ^/slashes(.*)$ //$1/ break; proxy_pass http://APP; }
            location /empty { rewrite ^/empty(.*)$ $1 break; proxy_pass http://APP; }
            location /chain { rewrite ^/chain/.(.+)$ /chain/$1 last; return 200 '$uri'; }
            location /old { if ($old) { return 301 $old; } return 200 current; }
            location /oldlast { if ($old = '') { rewrite ^/oldlast(.*)$ /app$1 last; } }
            location /cookie { if ($http_cookie ~* "id=([^;]+)(?:;|$)") { set $id $1; } return 200 '$id $cookie_id'; }
            location /agent { if ($http_user_agent ~ "MSIE (\d+)") { rewrite ^(.*)$ /msie$1 break; } proxy_pass http://APP; }
            location /arg { if ($args ~ "post=(\d+)") { return 301 /p/$1; } return 200 none; }
            location ~ ^/user/(\w+)/(.*)$ { set $user $1; rewrite ^ /$2 break; proxy_set_header X-User $user; proxy_pass http://APP; }
            location ~ ^/dl/(?<file>.+)\.(?<ext>[^.]+)$ { return 200 '$file $ext $1 $2'; }
            location /kept { rewrite ^/kept/(.*)$ /$1; rewrite ^/nomatch /x; rewrite ^/(.*)$ /app/$1 break; proxy_pass http://APP; }
            location /www { if ($host ~* ^www\.(.*)) { set $bare $1; rewrite ^(.*)$ http://$bare$1 permanent; } return 200 bare; }
            location ~* \.(php|asp)$ { return 404; }
            location /meth { if ($request_method !~ ^(GET|HEAD)$) { return 405; } return 200 $request_method; }
        }"#,
        r#"
        [[map]]
        source = "$uri"
        variable = "old"
        entries = { '~^/old/(?<page>\d+)$' = "/new/$page" }
        [[server]]
        listen = "LISTEN"
        location = [
            { path = "/", return = "200 'root $uri'" },
            { path = "/last/", rewrite = "^/last/(.*)$ /api/$1 last" },
            { path = "/plain/", rewrite = "^/plain/(.*)$ /app/$1 last" },
            { path = "/api/", proxy_pass = "http://APP/v1/" },
            { path = "/app/", proxy_pass = "http://APP" },
            { path = "/enc", rewrite = "^ /a%20b%2f break", proxy_pass = "http://APP" },
            { path = "/space", rewrite = "^ '/a b?c+d' break", proxy_pass = "http://APP" },
            { path = "/slashes", rewrite = "^/slashes(.*)$ //$1/ break", proxy_pass = "http://APP" },
            { path = "/empty", rewrite = "^/empty(.*)$ $1 break", proxy_pass = "http://APP" },
            { path = "/chain", rewrite = "^/chain/.(.+)$ /chain/$1 last", return = "200 $uri" },
            { path = "/old", rewrite = [{ if = "$old", return = "301 $old" }], return = "200 current" },
            { path = "/oldlast", rewrite = [{ if = "$old = ''", rewrite = "^/oldlast(.*)$ /app$1 last" }] },
            { path = "/cookie", rewrite = [{ if = '$http_cookie ~* "id=([^;]+)(?:;|$)"', set = { id = "$1" } }], return = "200 '$id $cookie_id'" },
            { path = "/agent", rewrite = [{ if = '$http_user_agent ~ "MSIE (\d+)"', rewrite = "^(.*)$ /msie$1 break" }], proxy_pass = "http://APP" },
            { path = "/arg", rewrite = [{ if = '$args ~ "post=(\d+)"', return = "301 /p/$1" }], return = "200 none" },
            { path = '~ ^/user/(\w+)/(.*)$', set = { user = "$1" }, rewrite = "^ /$2 break", proxy_set_header = { X-User = "$user" }, proxy_pass = "http://APP" },
            { path = '~ ^/dl/(?<file>.+)\.(?<ext>[^.]+)$', return = "200 '$file $ext $1 $2'" },
            { path = "/kept", rewrite = ["^/kept/(.*)$ /$1", "^/nomatch /x", "^/(.*)$ /app/$1 break"], proxy_pass = "http://APP" },
            { path = "/www", rewrite = [{ if = '$host ~* ^www\.(.*)', set = { bare = "$1" }, rewrite = "^(.*)$ http://$bare$1 permanent" }], return = "200 bare" },
            { path = '~* \.(php|asp)$', return = "404" },
            { path = "/meth", rewrite = [{ if = "$request_method !~ ^(GET|HEAD)$", return = "405" }], return = "200 $request_method" },
        ]
        "#,
    )
    .expect(&[
        ("/last/x%20y?a", "200 GET /v1/x%20y?a"),
        ("/last/x%3Fy%25z", "200 GET /v1/x%3Fy%25z"),
        ("/plain/x%2Fy%2By", "200 GET /app/x/y+y"),
        ("/plain/%C3%BC", "200 GET /app/%C3%BC"),
        ("/app/x%2Fy%2By", "200 GET /app/x%2Fy%2By"),
        ("/enc", "200 GET /a%2520b%252f"),
        ("/space", "200 GET /a%20b?c+d"),
        ("/slashes/x", "200 GET ///x/"),
        ("/empty/x", "200 GET /x"),
        ("/empty", "500"),
        ("/chain/1", "200 /chain/1"),
        ("/chain/1234567890", "200 /chain/0"),
        ("/chain/12345678901", "200 /chain/1"),
        ("/chain/123456789012", "500"),
        ("/old/12", "301 -> http://a:PORT/new/12"),
        ("/old/x", "200 current"),
        ("/oldlast/x", "200 GET /app/x"),
        ("/cookie Cookie: a=b; id=12", "200 12 12"),
        ("/cookie", "200  "),
        ("/agent User-Agent: MSIE 7", "200 GET /msie/agent"),
        ("/agent User-Agent: other", "200 GET /agent"),
        ("/arg?post=12&x", "301 -> http://a:PORT/p/12"),
        ("/arg?post=x", "200 none"),
        ("/user/me/a/b?c", "200 GET /?c X-User:me"),
        ("/dl/a.tar.gz", "200 a.tar gz a.tar gz"),
        ("/kept/x?a", "200 GET /app/x?a"),
        ("/www/x Host: WWW.example.com", "301 -> http://example.com/www/x"),
        ("/www/x", "200 bare"),
        ("/x.PHP", "404"),
        ("DELETE /meth", "405"),
        ("/meth", "200 GET"),
        ("/a/b/../c", "200 root /a/c"),
        ("/a//b/./c", "200 root /a/b/c"),
        ("/%2e%2e/x", "400"),
        ("/a%00", "400"),
    ]);
}

/// Hopgate and, where it is installed, nginx, on configurations that say the same.
struct Pair {
    _hopgate: Hopgate,
    addr: String,
    nginx: Option<Nginx>,
}

impl Pair {
    #[track_caller]
    fn start(nginx: &str, toml: &str) -> Self {
        Self::start_with(&App::start(), &Dir::new(), nginx, toml)
    }

    /// Starts both. In the texts `LISTEN` is the address to listen on, `APP` that of an app, `DIR` a directory.
    #[track_caller]
    fn start_with(app: &App, dir: &Dir, nginx: &str, toml: &str) -> Self {
        let dir = dir.path("");
        let filled = |text: &str| text.replace("APP", &app.addr).replace("DIR", dir.trim_end_matches('/'));
        let nginx = Nginx::is_installed().then(|| {
            let keeps_alive = "proxy_http_version 1.1; proxy_set_header Connection '';\n";
            Nginx::start(&format!("{keeps_alive}{}", filled(nginx).replace("LISTEN", "80")))
        });
        let addr = free_addr().to_string();
        let top = "workers = 1\nforwarded_headers = \"pass\"\nencoded_slashes = \"pass\"\n";
        let hopgate = Hopgate::start(&format!("{top}{}", filled(toml).replace("LISTEN", &addr)));
        Self { _hopgate: hopgate, addr, nginx }
    }

    /// Asks both, and compares each answer with the one that is expected.
    #[track_caller]
    fn expect(&self, rows: &[(&str, &str)]) {
        let nginx = self.nginx.as_ref().map(Nginx::addr);
        let mut wrong = String::new();
        for (request, expected) in rows {
            for (who, addr) in [("hopgate", Some(self.addr.as_str())), ("nginx", nginx)] {
                let Some(got) = addr.map(|addr| ask(addr, request)) else { continue };
                if got != *expected {
                    wrong += &format!("{request}\n    expected: {expected}\n    {who:>8}: {got}\n");
                }
            }
        }
        assert!(wrong.is_empty(), "\n{wrong}");
    }
}

/// Sends `[METHOD ]TARGET[ Field: value]`, and says the answer in one line: its status, its `Location`, and its body
/// unless that is no more than the proxy's own few words about the status.
#[track_caller]
fn ask(addr: &str, request: &str) -> String {
    let (method, rest) =
        if request.starts_with('/') { ("GET", request) } else { request.split_once(' ').expect("a target") };
    let (target, field) = rest.split_once(' ').unwrap_or((rest, ""));
    let host = if field.starts_with("Host:") { "" } else { "Host: a\r\n" };
    let end = if field.is_empty() { "" } else { "\r\n" };
    let body = if field == "Content-Length: 5" { "hello" } else { "" };
    let mut client = Peer::new("client", TcpStream::connect(addr).expect("it listens"));
    client.send(format!("{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n{field}{end}\r\n{body}"));
    if method == "HEAD" {
        return client.head().status().to_string();
    }
    let Some(answer) = client.response_if_any() else { return "closed".to_owned() };
    let location = answer.head.field("Location").map_or_else(String::new, |to| format!(" -> {to}"));
    let text = answer.text();
    let status = answer.status.to_string();
    let is_own = text.is_empty() || text.starts_with("<html>") || text.starts_with(&format!("{status} "));
    let body = if is_own { String::new() } else { format!(" {text}") };
    let port = addr.rsplit(':').next().expect("a port");
    format!("{status}{location}{body}").replace(&format!(":{port}"), ":PORT")
}

/// Answers with the method, the target and the body of a request, and with its `X-` fields; the status of `/status/404`
/// is 404.
struct App {
    addr: String,
}

impl App {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port to listen on");
        let addr = listener.local_addr().expect("a listener has an address").to_string();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || answer(&stream));
            }
        });
        Self { addr }
    }
}

/// Serves one connection until it ends; its end is the proxy's business.
fn answer(stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        reader.read_line(&mut first).ok()?;
        let mut words = first.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let mut seen = format!("{method} {target}");
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            match line.trim_end().split_once(": ") {
                None => break,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().ok()?
                }
                Some((name, value)) if name.starts_with("X-") => seen += &format!(" {name}:{value}"),
                Some(_) => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        if length > 0 {
            seen += &format!(" {}", String::from_utf8_lossy(&body));
        }
        let status = target.strip_prefix("/status/").and_then(|rest| rest.get(..3)).unwrap_or("200");
        let content = if method == "HEAD" { "" } else { &seen };
        let answer = format!("HTTP/1.1 {status} S\r\nContent-Length: {}\r\n\r\n{content}", seen.len());
        (&*stream).write_all(answer.as_bytes()).ok()?;
    }
}
