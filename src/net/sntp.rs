//! What time another host has: one question by SNTP (RFC 4330, RFC 5905 §14).
//!
//! A packet is believed only where it repeats the random number of the question (RFC 5905 calls it the origin timestamp),
//! comes from a server that is itself in time, and from the address that was asked. Does not set any clock.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;

use crate::types::{Clock, Timestamp};

/// The port of NTP.
pub const PORT: u16 = 123;

/// Octets of a packet without extension fields.
const PACKET_BYTES: usize = 48;
/// From 1900, where NTP's seconds begin, to 1970.
const NTP_TO_UNIX_SECONDS: i64 = 2_208_988_800;
/// NTP's seconds come round after so many of them: in 2036 for the first time.
const ERA_SECONDS: i64 = 1 << 32;

/// Why there is no time.
#[derive(Debug, thiserror::Error)]
pub enum SntpError {
    /// The packet could not be sent, or nobody answered.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It answered, and the answer is of no use.
    #[error("answered, but {0}")]
    Useless(&'static str),
}

/// How far our clock is ahead of the server's, in milliseconds; negative where it is behind. Waits for `timeout` at most.
/// `nonce` must be random.
pub async fn ask(server: SocketAddr, clock: &dyn Clock, nonce: u64, timeout: Duration) -> Result<i64, SntpError> {
    let local: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((local, 0)).await?;
    // From now on the socket takes packets of this address only.
    socket.connect(server).await?;
    let sent_at = clock.now();
    socket.send(&question(nonce)).await?;
    let mut packet = [0; PACKET_BYTES];
    let length = match tokio::time::timeout(timeout, socket.recv(&mut packet)).await {
        Ok(received) => received?,
        Err(_) => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    };
    let answer = packet.get(..length).unwrap_or_default();
    offset_ms(answer, nonce, sent_at, clock.now())
}

/// Version 4, mode 3 (client). The time of sending is nobody's business; a random number serves as well.
fn question(nonce: u64) -> [u8; PACKET_BYTES] {
    let mut packet = [0; PACKET_BYTES];
    packet[0] = (4 << 3) | 3;
    packet[40..].copy_from_slice(&nonce.to_be_bytes());
    packet
}

/// RFC 5905 §8: half the sum of what both ways seem to take, turned round: ours against the server's.
fn offset_ms(packet: &[u8], nonce: u64, sent_at: Timestamp, received_at: Timestamp) -> Result<i64, SntpError> {
    let (Some([first, stratum]), Some(origin), Some(received), Some(sent)) =
        (packet.first_chunk::<2>(), field(packet, 24), field(packet, 32), field(packet, 40))
    else {
        return Err(SntpError::Useless("its answer is too short"));
    };
    if origin != nonce {
        return Err(SntpError::Useless("not to our question"));
    }
    if first & 7 != 4 {
        return Err(SntpError::Useless("not as a server"));
    }
    if *stratum == 0 {
        return Err(SntpError::Useless("refuses to serve us (kiss-o'-death)"));
    }
    if first >> 6 == 3 || *stratum > 15 || sent == 0 || received == 0 {
        return Err(SntpError::Useless("its own clock is not set"));
    }
    let (t1, t4) = (unix_ms(sent_at), unix_ms(received_at));
    let (t2, t3) = (ntp_ms(received, t1), ntp_ms(sent, t4));
    Ok(((t1 - t2) + (t4 - t3)) / 2)
}

fn field(packet: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*packet.get(at..)?.first_chunk()?))
}

fn unix_ms(time: Timestamp) -> i64 {
    // The year 10889 at most, as in message ids: nothing here overflows.
    i64::try_from(time.millis()).unwrap_or(i64::MAX).min(1 << 48)
}

/// A timestamp of NTP, of the era that brings it nearest to `near_ms`.
fn ntp_ms(timestamp: u64, near_ms: i64) -> i64 {
    let seconds = i64::try_from(timestamp >> 32).unwrap_or_default() - NTP_TO_UNIX_SECONDS;
    let fraction = i64::try_from(((timestamp & 0xffff_ffff) * 1_000) >> 32).unwrap_or_default();
    let eras = (near_ms / 1_000 - seconds + ERA_SECONDS / 2).div_euclid(ERA_SECONDS);
    (seconds + eras * ERA_SECONDS) * 1_000 + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_250);
    const NONCE: u64 = 0x0123_4567_89ab_cdef;

    fn ntp(time_ms: i64) -> u64 {
        let seconds = u64::try_from((time_ms / 1_000 + NTP_TO_UNIX_SECONDS).rem_euclid(ERA_SECONDS)).unwrap();
        let fraction = (u64::try_from(time_ms % 1_000).unwrap() << 32) / 1_000;
        (seconds << 32) | fraction
    }

    fn packet(first: u8, stratum: u8, nonce: u64, server_ms: i64) -> Vec<u8> {
        let mut packet = vec![0; PACKET_BYTES];
        (packet[0], packet[1]) = (first, stratum);
        packet[24..32].copy_from_slice(&nonce.to_be_bytes());
        packet[32..40].copy_from_slice(&ntp(server_ms).to_be_bytes());
        packet[40..].copy_from_slice(&ntp(server_ms).to_be_bytes());
        packet
    }

    fn offset_at(now: Timestamp, ahead_ms: i64) -> i64 {
        let server_ms = i64::try_from(now.millis()).unwrap() + 50 - ahead_ms;
        offset_ms(&packet(0x24, 2, NONCE, server_ms), NONCE, now, now.plus(Duration::from_millis(100))).unwrap()
    }

    #[test]
    fn the_way_there_and_back_is_taken_out() {
        for ahead_ms in [0, 3_000, -3_000, 86_400_000, -400 * 86_400_000] {
            let offset = offset_at(NOW, ahead_ms);
            assert!((offset - ahead_ms).abs() <= 1, "{offset} for {ahead_ms}");
        }
    }

    #[test]
    fn the_era_of_2036_is_no_jump() {
        let before = Timestamp::from_millis(2_085_978_495_500);
        for ahead_ms in [0, 2_000, -2_000] {
            let offset = offset_at(before, ahead_ms);
            assert!((offset - ahead_ms).abs() <= 1, "{offset} for {ahead_ms}");
        }
    }

    #[test]
    fn what_is_no_answer_of_a_server_in_time_is_refused() {
        let good = packet(0x24, 2, NONCE, 1_800_000_000_000);
        for (bad, reason) in [
            (good[..47].to_vec(), "too short"),
            (Vec::new(), "too short"),
            (packet(0x24, 2, NONCE + 1, 1_800_000_000_000), "not to our question"),
            (packet(0x23, 2, NONCE, 1_800_000_000_000), "not as a server"),
            (packet(0x24, 0, NONCE, 1_800_000_000_000), "kiss-o'-death"),
            (packet(0xe4, 2, NONCE, 1_800_000_000_000), "not set"),
            (packet(0x24, 16, NONCE, 1_800_000_000_000), "not set"),
        ] {
            let error = offset_ms(&bad, NONCE, NOW, NOW).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert!(offset_ms(&good, NONCE, NOW, NOW).is_ok());
    }

    #[test]
    fn no_packet_of_any_numbers_overflows() {
        for fill in [0, 1, 0x24, 0x7f, 0x80, 0xff] {
            for time in [Timestamp::EPOCH, NOW, Timestamp::MAX] {
                let mut packet = vec![fill; PACKET_BYTES];
                (packet[0], packet[1]) = (0x24, 1);
                let nonce = u64::from_be_bytes([fill; 8]);
                let _ = offset_ms(&packet, nonce, time, time);
            }
        }
    }
}
