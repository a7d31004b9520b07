//! Headers octet by octet, and a SOCKS5 proxy that answers octet by octet.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use super::*;
use crate::net::dial::TcpDialer;
use crate::net::egress::is_proxy_fault;
use crate::net::{BoxStream, Dialer};

const PATIENCE: Duration = Duration::from_secs(30);
/// For what is waited for in vain.
const SHORT: Duration = Duration::from_millis(100);
const HOST: &str = "192.0.2.25:25";
/// CONNECT to [`HOST`] (RFC 1928 §4).
const REQUEST: [u8; 10] = [5, 1, 0, 1, 192, 0, 2, 25, 0, 25];
/// The method without a login is taken.
const TAKEN: &[u8] = &[5, 0];

#[test]
fn a_header_of_version_2_names_source_and_host() {
    let header = |source: &str, remote: &str| {
        header(&Via::direct(Some(source.parse().unwrap())), remote.parse().unwrap()).unwrap()
    };
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    // Version 2, PROXY; TCP over IPv4; 12 octets: addresses, ports.
    let v4 = [&signature[..], &[0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 7, 0, 0, 0, 25]].concat();
    assert_eq!(header("192.0.2.1", "198.51.100.7:25"), v4);
    let v6 = header("2001:db8::1", "[2001:db8::2]:25");
    assert_eq!(v6[..16], [&signature[..], &[0x21, 0x21, 0, 36]].concat());
    assert_eq!((v6.len(), v6[31], v6[47], v6[51]), (52, 1, 2, 25));
}

/// A proxy that reads so many octets and says what follows, in turn; then it sends what comes back to it, until the end.
/// What it read.
async fn serve(listener: TcpListener, script: &[(usize, &[u8])]) -> Vec<u8> {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut read = Vec::new();
    for (count, answer) in script {
        let mut octets = vec![0; *count];
        stream.read_exact(&mut octets).await.unwrap();
        read.extend_from_slice(&octets);
        stream.write_all(answer).await.unwrap();
    }
    // Until the client goes.
    drop(stream.read(&mut [0]).await);
    read
}

/// Dials [`HOST`] by such a proxy; what it read, and what came of it.
async fn dial(
    login: Option<(&str, &str)>,
    timeout: Duration,
    script: &[(usize, &[u8])],
) -> (Vec<u8>, io::Result<BoxStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let login = login.map(|(user, password)| ProxyLogin::new(user, Zeroizing::new(password.to_owned())).unwrap());
    let proxy = Proxy::Socks5 { address: listener.local_addr().unwrap(), login };
    let via = Via { address: None, proxy: Some(proxy) };
    let dialling = async {
        let result = TcpDialer.dial(&via, HOST.parse().unwrap(), timeout).await;
        match result {
            Ok(mut stream) => {
                // What the host says first is not lost.
                let mut greeting = [0; 3];
                stream.read_exact(&mut greeting).await.unwrap();
                assert_eq!(&greeting, b"220");
                Ok(stream)
            }
            Err(error) => Err(error),
        }
        .map(|stream| {
            drop(stream);
            Box::new(tokio::io::empty()) as BoxStream
        })
    };
    tokio::join!(serve(listener, script), dialling)
}

/// The answer to a request, with the address that the proxy sends from (RFC 1928 §6).
fn answer(code: u8) -> Vec<u8> {
    [&[5, code, 0, 1, 198, 51, 100, 1, 0, 99], &b"220"[..]].concat()
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_address_of_the_host() {
    let (read, result) = dial(None, PATIENCE, &[(3, TAKEN), (10, &answer(0))]).await;
    assert!(result.is_ok());
    assert_eq!(read, [&[5, 1, 0], &REQUEST[..]].concat());
}

#[tokio::test]
async fn a_login_is_said_where_there_is_one() {
    let script: [(usize, &[u8]); 3] = [(4, &[5, 2]), (10, &[1, 0]), (10, &answer(0))];
    let (read, result) = dial(Some(("mta", "5ecret")), PATIENCE, &script).await;
    assert!(result.is_ok());
    // Methods: none, user name and password (RFC 1929).
    assert_eq!(read, [&[5, 2, 0, 2, 1, 3], &b"mta"[..], &[6], b"5ecret", &REQUEST].concat()[..read.len()]);
}

#[tokio::test]
async fn what_a_proxy_says_of_the_host_is_the_hosts() {
    for (code, kind) in [
        (3, io::ErrorKind::NetworkUnreachable),
        (4, io::ErrorKind::HostUnreachable),
        (5, io::ErrorKind::ConnectionRefused),
        (6, io::ErrorKind::TimedOut),
    ] {
        let (_, result) = dial(None, PATIENCE, &[(3, TAKEN), (10, &answer(code))]).await;
        let Err(error) = result else { panic!("{code} is a failure") };
        assert_eq!((error.kind(), is_proxy_fault(&error)), (kind, false), "{error}");
        assert!(error.to_string().contains("proxy socks5 127.0.0.1:"), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_that_does_not_do_its_work_is_to_blame() {
    let scripts: [&[(usize, &[u8])]; 5] = [
        &[(3, &[5, 0xff])],
        &[(3, b"HTTP/1.1 400")],
        &[(3, TAKEN), (10, &[5, 1, 0, 1, 0, 0, 0, 0, 0, 0])],
        &[(3, TAKEN), (10, &[5, 2, 0, 1, 0, 0, 0, 0, 0, 0])],
        &[(3, TAKEN), (10, &[5, 9, 0, 1, 0, 0, 0, 0, 0, 0])],
    ];
    for script in scripts {
        let (_, result) = dial(None, PATIENCE, script).await;
        let Err(error) = result else { panic!("{script:?} is a failure") };
        assert!(is_proxy_fault(&error) && error.to_string().contains("proxy socks5 127.0.0.1:"), "{error}");
    }
    let (_, result) = dial(Some(("mta", "5ecret")), PATIENCE, &[(4, &[5, 2]), (12, &[1, 1])]).await;
    let Err(error) = result else { panic!("the login was refused") };
    assert!(is_proxy_fault(&error) && !error.to_string().contains("5ecret"), "{error}");
}

#[tokio::test]
async fn silence_is_the_proxys_until_it_has_answered_for_itself_and_then_the_hosts() {
    let (_, result) = dial(None, SHORT, &[(3, &[])]).await;
    let Err(error) = result else { panic!("nothing was said") };
    assert!(is_proxy_fault(&error) && error.to_string().ends_with("timed out"), "{error}");
    let (_, result) = dial(None, SHORT, &[(3, TAKEN), (10, &[])]).await;
    let Err(error) = result else { panic!("nothing was said of the host") };
    assert_eq!((error.kind(), is_proxy_fault(&error)), (io::ErrorKind::TimedOut, false), "{error}");
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_to_blame() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let source = "192.0.2.1".parse().ok();
    for proxy in [Proxy::Socks5 { address, login: None }, Proxy::HaProxy { address }] {
        let via = Via { address: source, proxy: Some(proxy) };
        let Err(error) = TcpDialer.dial(&via, HOST.parse().unwrap(), PATIENCE).await else { panic!("nobody is there") };
        assert!(is_proxy_fault(&error) && error.to_string().contains(&address.to_string()), "{error}");
        let Err(error) = TcpDialer.dial(&via, "[2001:db8::1]:25".parse().unwrap(), PATIENCE).await else {
            panic!("an IPv4 source reaches no IPv6 host")
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
}
