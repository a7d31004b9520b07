//! A DNS server for tests: answers from a table that a test changes while it runs, also with failures.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, PTR, SOA, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// What the server says to a question.
#[derive(Clone)]
pub(crate) enum Say {
    /// These records, in the answer section.
    Records(Vec<Record>),
    /// Cut off over UDP, these records over TCP.
    OnlyByTcp(Vec<Record>),
    /// NOERROR without records; the SOA's minimum.
    NoData(u32),
    /// NXDOMAIN; the SOA's minimum.
    NxDomain(u32),
    /// Only a code.
    Code(ResponseCode),
    /// Nothing.
    Silence,
    /// The records, once the test has let it go.
    Later(Arc<Semaphore>, Vec<Record>),
}

/// Questions and what is said to them; names in lower case with a trailing dot. Others get [`Say::Code`] REFUSED.
#[derive(Default)]
struct Table {
    says: HashMap<(String, RecordType), Say>,
    asked: Vec<(String, RecordType)>,
    /// While set, this is said to every question.
    always: Option<Say>,
}

/// A server on a loopback port, UDP and TCP; ends when dropped.
pub(crate) struct Responder {
    pub(crate) address: SocketAddr,
    table: Arc<Mutex<Table>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Responder {
    pub(crate) async fn start() -> Self {
        let (udp, tcp) = bind().await.expect("a loopback port is free for both UDP and TCP");
        let address = udp.local_addr().unwrap();
        let table = Arc::new(Mutex::new(Table::default()));
        let tasks = vec![
            tokio::spawn(serve_udp(Arc::new(udp), Arc::clone(&table))),
            tokio::spawn(serve_tcp(tcp, Arc::clone(&table))),
        ];
        Self { address, table, tasks }
    }

    pub(crate) fn say(&self, name: &str, kind: RecordType, say: Say) {
        self.table.lock().unwrap().says.insert((format!("{name}."), kind), say);
    }

    pub(crate) fn say_always(&self, say: Option<Say>) {
        self.table.lock().unwrap().always = say;
    }

    /// How often the question came, by UDP or TCP.
    pub(crate) fn asked(&self, name: &str, kind: RecordType) -> usize {
        let key = (format!("{name}."), kind);
        self.table.lock().unwrap().asked.iter().filter(|asked| **asked == key).count()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn bind() -> io::Result<(UdpSocket, TcpListener)> {
    let mut result = Err(io::Error::other("not tried"));
    for _ in 0..20 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        result = UdpSocket::bind(tcp.local_addr()?).await.map(|udp| (udp, tcp));
        if result.is_ok() {
            break;
        }
    }
    result
}

async fn serve_udp(socket: Arc<UdpSocket>, table: Arc<Mutex<Table>>) {
    let mut buffer = vec![0; 4_096];
    while let Ok((len, peer)) = socket.recv_from(&mut buffer).await {
        let Ok(request) = Message::from_vec(&buffer[..len]) else { continue };
        let (socket, table) = (Arc::clone(&socket), Arc::clone(&table));
        tokio::spawn(async move {
            if let Some(reply) = reply(&request, &table, false).await {
                let _ = socket.send_to(&reply, peer).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, table: Arc<Mutex<Table>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_stream(stream, Arc::clone(&table)));
    }
}

async fn serve_stream(mut stream: TcpStream, table: Arc<Mutex<Table>>) -> io::Result<()> {
    loop {
        let len = stream.read_u16().await?;
        let mut buffer = vec![0; usize::from(len)];
        stream.read_exact(&mut buffer).await?;
        let request = Message::from_vec(&buffer).map_err(io::Error::other)?;
        if let Some(reply) = reply(&request, &table, true).await {
            stream.write_u16(u16::try_from(reply.len()).unwrap()).await?;
            stream.write_all(&reply).await?;
        }
    }
}

fn lookup(query: &Query, table: &Mutex<Table>) -> Say {
    let mut table = table.lock().unwrap();
    let key = (query.name().to_lowercase().to_string(), query.query_type());
    table.asked.push(key.clone());
    let said = table.always.clone().or_else(|| table.says.get(&key).cloned());
    said.unwrap_or(Say::Code(ResponseCode::Refused))
}

async fn reply(request: &Message, table: &Mutex<Table>, is_tcp: bool) -> Option<Vec<u8>> {
    let query = request.queries.first()?.clone();
    let mut message = Message::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
    let say = lookup(&query, table);
    message.add_query(query);
    match say {
        Say::Records(records) => message.answers = records,
        Say::OnlyByTcp(records) if is_tcp => message.answers = records,
        Say::OnlyByTcp(_) => message.metadata.truncation = true,
        Say::NoData(minimum) => message.authorities = vec![soa(minimum)],
        Say::NxDomain(minimum) => {
            message.metadata.response_code = ResponseCode::NXDomain;
            message.authorities = vec![soa(minimum)];
        }
        Say::Code(code) => message.metadata.response_code = code,
        Say::Silence => return None,
        Say::Later(gate, records) => {
            let _permit = gate.acquire().await.ok()?;
            message.answers = records;
        }
    }
    Some(message.to_vec().unwrap())
}

fn soa(minimum: u32) -> Record {
    let soa = SOA::new(name("ns.test"), name("hostmaster.test"), 1, 3_600, 600, 86_400, minimum);
    Record::from_rdata(name("test"), minimum, RData::SOA(soa))
}

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).unwrap()
}

/// `10 mx.test` at `owner`; `.` is the root, any octet may stand in a label. TTL 300 seconds.
pub(crate) fn mx(owner: &str, record: &str) -> Record {
    let (preference, host) = record.split_once(' ').unwrap();
    let host = if host == "." { Name::root() } else { Name::from_labels(host.split('.').map(str::as_bytes)).unwrap() };
    Record::from_rdata(name(owner), 300, RData::MX(MX::new(preference.parse().unwrap(), host)))
}

/// A or AAAA of `owner`. TTL 300 seconds.
pub(crate) fn address(owner: &str, address: &str) -> Record {
    let data = match address.parse().unwrap() {
        std::net::IpAddr::V4(address) => RData::A(A(address)),
        std::net::IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(name(owner), 300, data)
}

/// CNAME of `owner`. TTL 60 seconds.
pub(crate) fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
}

/// TXT of `owner`, of these strings. TTL 300 seconds.
pub(crate) fn text(owner: &str, strings: &[&str]) -> Record {
    let strings = strings.iter().map(|string| (*string).to_owned()).collect();
    Record::from_rdata(name(owner), 300, RData::TXT(TXT::new(strings)))
}

/// PTR of `owner`. TTL 300 seconds.
pub(crate) fn pointer(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 300, RData::PTR(PTR(name(target))))
}
