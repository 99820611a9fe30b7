//! Every endpoint by every sort of credentials.

use super::lab::{Port, Who, nobody, node_identity, stranger, talk2, token, with_port};
use longshore::port::route::TABLE;
use longshore::port::{Endpoint, find};

/// Method, path, what somebody is told who may do everything, and whether a reader of metrics may.
const CASES: &[(&str, &str, u16, bool)] = &[
    ("GET", "/healthz", 200, true),
    ("GET", "/healthz/ping", 200, true),
    ("GET", "/healthz/log", 200, true),
    ("GET", "/healthz/syncloop", 200, true),
    ("GET", "/healthz/other", 404, true),
    ("GET", "/pods", 200, true),
    ("GET", "/runningpods/", 200, true),
    ("GET", "/configz", 200, false),
    ("GET", "/statusz", 200, false),
    ("GET", "/flagz", 200, false),
    ("GET", "/stats/summary", 200, true),
    ("GET", "/stats/summary?only_cpu_and_memory=true", 200, true),
    ("GET", "/stats/container", 404, true),
    ("GET", "/metrics", 200, true),
    ("GET", "/metrics/cadvisor", 200, true),
    ("GET", "/metrics/probes", 200, true),
    ("GET", "/metrics/resource", 200, true),
    ("GET", "/metrics/slis", 200, true),
    ("POST", "/metrics", 405, false),
    ("GET", "/containerLogs/default/web/main", 400, false),
    ("GET", "/containerLogs/default/web/other", 404, false),
    ("GET", "/containerLogs/default/nobody/main", 404, false),
    ("POST", "/exec/default/web/main?command=id&output=1", 400, false),
    ("GET", "/exec/default/web/u-1/main?command=id&output=1", 400, false),
    ("GET", "/exec/default/web/u-2/main?command=id&output=1", 404, false),
    ("POST", "/attach/default/web/main?output=1", 400, false),
    ("GET", "/attach/default/web/u-1/main?output=1", 400, false),
    ("POST", "/portForward/default/web", 400, false),
    ("GET", "/portForward/default/web/u-1", 400, false),
    ("GET", "/portForward/default/web/u-2", 404, false),
    ("POST", "/run/default/web/main?cmd=id", 500, false),
    ("POST", "/run/default/web/u-1/main", 400, false),
    ("GET", "/run/default/web/main?cmd=id", 405, false),
    ("POST", "/checkpoint/default/web/main", 500, false),
    ("POST", "/checkpoint/default/nobody/main", 404, false),
    ("GET", "/logs/", 200, false),
    ("GET", "/logs/syslog", 200, false),
    ("GET", "/logs/nothing", 404, false),
    ("GET", "/logs/?query=kubelet", 403, false),
    ("GET", "/debug/pprof/heap", 501, false),
    ("PUT", "/debug/flags/v", 400, false),
    ("GET", "/nothing", 404, false),
    ("GET", "/", 404, false),
];

fn expired(port: &Port) -> Who {
    port.forged(|p| {
        p.not_before = rcgen::date_time_ymd(2020, 1, 1);
        p.not_after = rcgen::date_time_ymd(2021, 1, 1);
    })
}

#[test]
fn each_endpoint_takes_the_right_credentials_and_no_others() {
    with_port(
        |_| {},
        async |port| {
            let unknown = [
                ("none", nobody()),
                ("wrong token", token("t-wrong")),
                ("empty token", token("")),
                ("another authority's certificate", stranger()),
                ("expired certificate", expired(port)),
                ("certificate for a server", port.forged(|p| p.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth])),
                ("wrong token with an expired certificate", Who { token: Some("t-wrong"), ..expired(port) }),
            ];
            let right = [
                ("token", token("t-admin")),
                ("certificate", port.member("bob", &["admins"])),
                ("token with another authority's certificate", Who { token: Some("t-admin"), ..stranger() }),
            ];
            let fewer = [
                ("reader's token", token("t-reader")),
                ("reader's certificate", port.member("r", &["readers"])),
                ("node", node_identity(port)),
            ];
            for (method, path, told, reads) in CASES {
                for (name, who) in &unknown {
                    let answer = port.ask(who, method, path).await;
                    assert_eq!((answer.status, answer.text().as_str()), (401, "Unauthorized"), "{name} {method} {path}");
                }
                for (name, who) in &right {
                    let answer = port.ask(who, method, path).await;
                    assert_eq!(answer.status, *told, "{name} {method} {path}: {}", answer.text());
                }
                for (name, who) in &fewer {
                    let answer = port.ask(who, method, path).await;
                    let may = *reads && *name != "node";
                    assert_eq!(answer.status, if may { *told } else { 403 }, "{name} {method} {path}: {}", answer.text());
                    if !may {
                        assert!(answer.text().starts_with("Forbidden (user="), "{}", answer.text());
                    }
                }
            }
            for row in TABLE {
                assert!(
                    CASES.iter().any(|(m, p, ..)| find(m, p.split('?').next().unwrap()).row.is_some_and(|r| r.path == row.path)),
                    "{}",
                    row.path
                );
            }
        },
    );
}

#[test]
fn the_port_speaks_http_2_as_well() {
    with_port(
        |_| {},
        async |port| {
            for (who, told) in [(token("t-admin"), 200), (token("t-reader"), 403), (nobody(), 401)] {
                let stream = port.connect(None, "h2").await.unwrap();
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                assert_eq!(talk2(stream, who.request("GET", "/configz")).await.unwrap().status, told);
            }
        },
    );
}

#[test]
fn nobody_in_particular_is_let_in_only_where_that_is_configured() {
    with_port(
        |c| c.authentication.anonymous.enabled = true,
        async |port| {
            let answer = port.get(&nobody(), "/pods").await;
            assert_eq!(answer.text(), "Forbidden (user=system:anonymous, verb=get, resource=nodes, subresource(s)=[pods proxy])");
            // Wrong credentials are not the same as none.
            assert_eq!(port.get(&token("t-wrong"), "/pods").await.status, 401);
            assert_eq!(port.get(&stranger(), "/pods").await.status, 401);
            assert_eq!(port.get(&token("t-admin"), "/pods").await.status, 200);
        },
    );
    with_port(
        |c| {
            c.authentication.anonymous.enabled = true;
            c.authorization.mode = longshore::port::config::Mode::AlwaysAllow;
        },
        async |port| {
            assert_eq!(port.get(&nobody(), "/pods").await.status, 200);
            assert_eq!(port.get(&token("t-wrong"), "/pods").await.status, 401);
            assert_eq!(port.staff.access_questions.get(), 0);
        },
    );
    with_port(
        |c| c.authentication.webhook.enabled = false,
        async |port| {
            assert_eq!(port.get(&token("t-admin"), "/pods").await.status, 401, "tokens count for nothing");
            assert_eq!(port.get(&port.member("bob", &["admins"]), "/pods").await.status, 200);
            assert_eq!(port.staff.token_questions.get(), 0);
        },
    );
}

#[test]
fn endpoints_can_be_switched_off() {
    let admin = token("t-admin");
    with_port(
        |c| c.enable_debugging_handlers = false,
        async |port| {
            for (method, path, _, _) in CASES {
                let found = find(method, path.split('?').next().unwrap());
                let answer = port.ask(&admin, method, path).await;
                match found.row.map(|r| r.endpoint) {
                    Some(Endpoint::Configz | Endpoint::Checkpoint) => assert_eq!(answer.status, 404, "{path}"),
                    Some(
                        Endpoint::RunningPods
                        | Endpoint::ContainerLogs
                        | Endpoint::Exec
                        | Endpoint::Attach
                        | Endpoint::PortForward
                        | Endpoint::Run
                        | Endpoint::NodeLogs
                        | Endpoint::Profiles
                        | Endpoint::Verbosity,
                    ) => assert_eq!((answer.status, answer.text().as_str()), (405, "Debug endpoints are disabled."), "{path}"),
                    _ => assert!(answer.status != 401 && answer.status != 403, "{path}"),
                }
            }
        },
    );
    with_port(
        |c| (c.enable_system_log_handler, c.enable_profiling_handler, c.enable_debug_flags_handler) = (false, false, false),
        async |port| {
            assert_eq!(port.get(&admin, "/logs/").await.text(), "logs endpoint is disabled.");
            assert_eq!(port.get(&admin, "/debug/pprof/").await.text(), "profiling endpoint is disabled.");
            assert_eq!(port.ask(&admin, "PUT", "/debug/flags/v").await.text(), "flags endpoint is disabled.");
            assert_eq!(port.get(&admin, "/configz").await.status, 200);
        },
    );
}

#[test]
fn fine_grained_permissions_come_before_the_wide_one() {
    with_port(
        |_| {},
        async |port| {
            let wide = port.member("operator", &["proxies"]);
            assert_eq!(port.get(&wide, "/pods").await.status, 200);
            let asked: Vec<String> = port.staff.asked.borrow().iter().map(|(_, a)| a.sub.clone()).collect();
            assert_eq!(asked, ["pods", "proxy"]);
            assert_eq!(port.get(&wide, "/stats/summary").await.status, 403, "it is no fall-back for these");
            assert_eq!(port.get(&wide, "/containerLogs/default/web/main").await.status, 400);
        },
    );
}
