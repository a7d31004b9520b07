//! Messages to systemd (sd_notify(3)): ready, reloading, stopping, watchdog, one line of status.
//!
//! All of them do nothing where the daemon was not started by systemd with `Type=notify` or `Type=notify-reload`. A
//! message that cannot be sent is logged, never an error: systemd acts on its absence.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Longest status line; the rest is cut off.
const STATUS_CHARS_MAX: usize = 200;

/// The daemon serves: at the end of the start, and after each reload whether or not it took the new config.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// A reload begins; [`ready`] ends it. Carries the monotonic time, without which systemd 253 and later kill the service.
pub fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    match NotifyState::monotonic_usec_now() {
        Ok(now) => states.push(now),
        Err(error) => tracing::warn!(%error, "no monotonic time for systemd"),
    }
    states.push(NotifyState::Status("reloading"));
    send(&states);
}

/// SIGTERM was taken; the drain has begun.
pub fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    send(&[NotifyState::Status(&one_line(status))]);
}

/// Half of the time within which systemd wants a sign of life; `None` where it wants none.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|interval| !interval.is_zero())
}

/// Sends signs of life at [`watchdog_interval`] until `stop` is cancelled, each only if `is_alive` says so: a daemon that
/// hangs is restarted by systemd. Returns at once where no watchdog is set.
pub async fn watchdog(is_alive: impl Fn() -> bool + Send, stop: CancellationToken) {
    let Some(interval) = watchdog_interval() else {
        return;
    };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if is_alive() {
            send(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("not alive: no watchdog message sent, systemd will restart the daemon");
        }
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

/// A line end would begin another message.
fn one_line(text: &str) -> String {
    text.chars().take(STATUS_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use super::*;

    const CHILD: &str = "daemon::notify::tests::child_sends_one_message_of_each_kind";

    /// Not a test by itself: the environment can only be set for another process, so the test below starts this one.
    #[tokio::test]
    async fn child_sends_one_message_of_each_kind() {
        if std::env::var_os("POSTHASTE_TEST_NOTIFY").is_none() {
            return;
        }
        ready("serving\nREADY=0");
        reloading();
        status("12 queued");
        stopping("draining");
        assert_eq!(watchdog_interval(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn systemd_gets_the_messages_of_its_protocol() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args([CHILD, "--exact"])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "10000000")
            .env("POSTHASTE_TEST_NOTIFY", "1")
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
        let receive = || {
            let mut buffer = [0; 1_024];
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        socket.set_nonblocking(true).unwrap();
        assert_eq!(receive(), "READY=1\nSTATUS=serving READY=0\n");
        let reloading = receive();
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert!(reloading.ends_with("\nSTATUS=reloading\n"), "{reloading}");
        assert_eq!(receive(), "STATUS=12 queued\n");
        assert_eq!(receive(), "STOPPING=1\nSTATUS=draining\n");
    }

    #[test]
    fn a_status_is_one_short_line() {
        assert_eq!(one_line("a\r\nb\u{1b}[1m"), "a  b [1m");
        assert_eq!(one_line(&"é".repeat(500)).chars().count(), STATUS_CHARS_MAX);
    }
}
