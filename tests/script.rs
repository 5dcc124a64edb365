//! `return`, `if` and `map`: what comes of them is what comes of them with nginx, on a file that says the same.

mod support;

use std::fs;

use support::{Dir, Hopgate, Pair, Teller};

#[test]
fn a_return_answers_in_all_its_forms() {
    Pair::start(
        "server { listen LISTEN;
            location /204 { return 204; }
            location /200 { return 200; }
            location /text { return 200 'hello $arg_name'; }
            location /status { return 201 'it is $status'; }
            location /status/moved { return 307 /$status; }
            location /status/page { error_page 404 /status/of/page; return 404; }
            location /status/of/page { return 200 'that of $status'; }
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
            { path = "/status", return = "201 'it is $status'" },
            { path = "/status/moved", return = "307 /$status" },
            { path = "/status/page", error_page = "404 /status/of/page", return = "404" },
            { path = "/status/of/page", return = "200 'that of $status'" },
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
        ("/status", "201 it is 201"),
        ("/status/moved", "307 -> http://a:PORT/307"),
        ("/status/page", "404 that of 404"),
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
    let (dir, app) = (Dir::new(), Teller::start());
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
fn maps_that_ask_each_other_come_to_an_end() {
    let hopgate = Hopgate::start(
        r#"
        [[map]]
        source = "$b$b"
        variable = "a"
        default = "a$b$b"
        volatile = true

        [[map]]
        source = "$a$a"
        variable = "b"
        default = "b$a$a"
        volatile = true

        [[server]]
        listen = "127.0.0.1:0"
        location = [{ path = "/", return = "200 '<$a>'" }]
        "#,
    );
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.expect_status(200).text(), "<abb>");
}
