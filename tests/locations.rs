//! Locations, the slash that a path lacks, and servers by name: found as by nginx, on a file that says the same.

mod support;

use support::Pair;

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
