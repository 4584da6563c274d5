use super::*;

fn service(ready: Option<&str>, load: Option<&str>, duration: Option<u64>) -> Service {
    Service {
        ready: ready.map(|text| Ready::parse(text).unwrap()),
        ready_within: Duration::from_secs(5),
        load: load.map(str::to_owned),
        duration: duration.map(Duration::from_millis),
        stop: StopSignal::default(),
    }
}

/// A shell command as the server; its outcome and whether it was alive before the stop signal.
fn attended(server: &str, service: &Service) -> (Result<Served, String>, ExitStatus, bool) {
    let mut child = Command::new("sh")
        .args(["-c", server])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let handle = Server::open(child.id()).unwrap();
    let mut alive = false;
    let served = service.attend(&handle, &|| false, &mut || alive = true);
    (
        served.map_err(|failure| failure.reason),
        child.wait().unwrap(),
        alive,
    )
}

#[test]
fn a_server_is_waited_for_loaded_and_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("up").display().to_string();
    let asked = service(
        Some(&format!("test -e {flag}")),
        Some("echo 12,345.5 requests per second; echo $HEAPLAB_SERVER_PID"),
        None,
    );
    let server = format!("sleep 0.1; touch {flag}; exec sleep 60");
    let (served, status, alive) = attended(&server, &asked);
    let served = served.unwrap();
    assert!(
        served.ready_ns.unwrap() >= 100_000_000 && alive,
        "{served:?}"
    );
    assert!(served.load_ns.is_some() && !served.ended_early);
    assert_eq!(status.signal(), Some(15));
    assert!(asked.stop.is_orderly(status.code(), status.signal()));
    let metric = OwnMetric::parse("rps=1/s:higher:([0-9.,]+) requests").unwrap();
    assert_eq!(metric.read(&served.output), Ok(12_345.5));
}

#[test]
fn a_load_is_cut_off_by_the_duration_and_that_is_no_failure() {
    let (served, _, alive) = attended(
        "exec sleep 60",
        &service(None, Some("echo 1; sleep 60"), Some(200)),
    );
    let served = served.unwrap();
    assert!(alive && served.load_ns.is_none());
    assert_eq!(served.output.trim(), "1");
}

#[test]
fn what_goes_wrong_with_servers_is_said() {
    let mut slow = service(Some("false"), None, None);
    slow.ready_within = Duration::from_millis(80);
    let stubborn = service(Some("true"), None, Some(1));
    for (server, asked, wanted) in [
        (
            "exec sleep 60",
            &slow,
            "was not ready after 80 ms ('false')",
        ),
        (
            "exit 3",
            &service(Some("false"), None, None),
            "ended before it was ready",
        ),
        (
            "exec sleep 60",
            &service(None, Some("echo refused >&2; exit 7"), None),
            "the load ended with exit status 7; its last words: refused",
        ),
        (
            "sleep 0.1; kill -SEGV $$",
            &service(None, Some("sleep 0.3; exit 1"), None),
            "the program ended under the load, and the load ended with exit status 1",
        ),
        (
            "sleep 0.05",
            &service(None, None, Some(10_000)),
            "ended by itself before 10 s",
        ),
        (
            "exec sleep 60",
            &service(None, Some("kill -KILL $$"), None),
            "the load was killed by SIGKILL",
        ),
    ] {
        let (served, _, _) = attended(server, asked);
        let reason = served.unwrap_err();
        assert!(reason.contains(wanted), "{reason}");
    }
    assert_eq!(stubborn.stop.to_string(), "SIGTERM");
}

#[test]
fn a_port_that_is_taken_is_no_sign_of_readiness() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let taken = service(Some(&format!("tcp:{port}")), None, None);
    let reason = taken.before_start().unwrap_err().reason;
    assert!(reason.contains("answered by another process"), "{reason}");
    drop(listener);
    taken.before_start().unwrap();
}

#[test]
fn a_port_without_a_host_is_that_of_either_address_of_this_machine() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        // A machine may have no IPv6.
        let Ok(listener) = std::net::TcpListener::bind(address) else {
            continue;
        };
        let port = listener.local_addr().unwrap().port();
        let ready = Ready::parse(&format!("tcp:{port}")).unwrap();
        assert!(ready.must_be_free().is_err(), "{address}");
        assert_eq!(ready.to_string(), format!("tcp:{port}"));
    }
}

/// As many looks as there are ports to be given.
#[test]
fn looking_at_a_silent_port_does_not_connect_to_itself() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let ready = Ready::parse(&format!("tcp:127.0.0.1:{port}")).unwrap();
    for look in 0..30_000 {
        assert!(ready.must_be_free().is_ok(), "look {look} at {port}");
    }
}

#[test]
fn values_of_the_options() {
    assert_eq!(
        Ready::parse("tcp:80"),
        Ok(Ready::Tcp("localhost:80".into()))
    );
    assert_eq!(
        Ready::parse("tcp:[::1]:80"),
        Ok(Ready::Tcp("[::1]:80".into()))
    );
    assert_eq!(Ready::parse("curl x"), Ok(Ready::Command("curl x".into())));
    assert!(
        Ready::parse("tcp:0").is_err()
            && Ready::parse("tcp:x").is_err()
            && Ready::parse(" ").is_err()
    );
    for text in ["TERM", "sigterm", "15"] {
        assert_eq!(StopSignal::parse(text).unwrap().to_string(), "SIGTERM");
    }
    assert!(
        StopSignal::parse("SIGFOO")
            .unwrap_err()
            .contains("TERM, INT")
    );
    for (text, wanted) in [
        ("rps", "NAME=UNIT"),
        ("rps=1/s:best:x", "NAME=UNIT"),
        ("r s=1/s:lower:x", "is no name"),
        ("wall_s=s:lower:x", "measured already"),
        ("rps=1/s:higher:(", "no regular expression"),
    ] {
        assert!(
            OwnMetric::parse(text).unwrap_err().contains(wanted),
            "{text}"
        );
    }
    let metric = OwnMetric::parse("p99=ms:lower:99% ([a-z0-9.]+)").unwrap();
    assert_eq!(
        metric.read("99% 1.5\n99% 2.5\n"),
        Ok(2.5),
        "the last match counts"
    );
    assert!(metric.read("").unwrap_err().contains("no output"));
    assert!(metric.read("99% soon").unwrap_err().contains("no number"));
}
