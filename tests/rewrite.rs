//! `rewrite` and `set`: what clients and upstreams see of them is what they see of nginx, on a file that says the same in
//! nginx's words.

mod support;

use support::{Hopgate, Pair, Teller, ask};

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

#[test]
fn what_a_rewrite_puts_together_is_a_target_or_refused() {
    let app = Teller::start();
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
        app.addr()
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
