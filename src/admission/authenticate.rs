//! Is this login right? Asked for each AUTH; answered from memory where it was answered before.
//!
//! A hash takes some 20 ms of a core, on purpose. So what was right is remembered: under an HMAC, with a key that is drawn
//! when the process starts, of user, secret and hash, so that neither the secret nor a fast hash of it is in memory, and
//! a hash that the config no longer has is never hit. The same login that comes on many connections at once is verified
//! once. Who guesses, waits: [`crate::policy::logins`].
//!
//! Promises: a user that does not exist costs what one costs that does; at most one verification a core runs, at most
//! [`VERIFICATIONS_MAX`] wait, beyond that the answer is "later"; no secret is kept, shown or compared octet by octet.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::directory::Directory;
use super::{Authenticated, password};
use crate::events::metric;
use crate::policy::logins::{Gate, Logins, Try};

/// Verifications that run or wait for a core. Full: 454 4.7.0, the client tries again.
pub const VERIFICATIONS_MAX: usize = 256;
/// Logins that are remembered as right. Full: those whose time is over go, else every other one; they are verified anew.
pub const KNOWN_LOGINS_MAX: usize = 20_000;
/// A login that was not used for so long is verified anew.
pub const KNOWN_FOR: Duration = Duration::from_secs(600);

const KEY_BYTES: usize = 32;

/// An HMAC-SHA-256.
type Tag = [u8; 32];
/// The hash that fits the secret.
type Found = Option<Arc<str>>;

/// What a client says of itself.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// The user name, as the client wrote it.
    pub user: &'a str,
    /// The secret.
    pub secret: &'a [u8],
    /// One client of those that are told apart: an IPv4 address, an IPv6 /64.
    pub client: IpAddr,
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 235.
    Right(Authenticated),
    /// 535.
    Wrong(Fault),
    /// 454: nobody has looked.
    Later(Hindrance),
}

/// What is wrong. For the audit stream: a client is told the same for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no such user.
    UnknownUser,
    /// No live secret of the user is this one.
    WrongSecret,
}

/// Why nobody has looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// Too many failures of this client, or with this name.
    Throttled,
    /// Too many verifications wait.
    Busy,
}

/// See the module. One for the process.
pub struct Authenticator {
    key: hmac::Key,
    cores: Arc<Semaphore>,
    since: Instant,
    state: Mutex<State>,
    hits: metrics::Counter,
    misses: metrics::Counter,
    waiting: metrics::Gauge,
}

#[derive(Default)]
struct State {
    logins: Logins,
    /// When each was used last.
    known: HashMap<Tag, u64>,
    /// Verifications that run or wait, for who joins them.
    under_way: HashMap<Tag, watch::Receiver<Option<Found>>>,
}

/// What to do about a claim.
enum Plan {
    Answer(Verdict),
    /// Its outcome will be seen here. Without a try: somebody else's, which is the same guess.
    Await(Option<Try>, watch::Receiver<Option<Found>>),
}

impl Authenticator {
    /// Verifies on so many threads at once: the number of cores.
    pub fn new(cores: usize) -> Arc<Self> {
        let lookups = |result: &'static str| metrics::counter!(metric::AUTH_CACHE, "result" => result);
        Arc::new(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &*Zeroizing::new(rand::random::<[u8; KEY_BYTES]>())),
            cores: Arc::new(Semaphore::new(cores.max(1))),
            since: Instant::now(),
            state: Mutex::default(),
            hits: lookups("hit"),
            misses: lookups("miss"),
            waiting: metrics::gauge!(metric::AUTH_WAITING),
        })
    }

    /// Whether the claim is right by this directory. Cancel-safe: what was begun goes on and is remembered.
    pub async fn verify(self: &Arc<Self>, directory: &Directory, claim: Claim<'_>) -> Verdict {
        let fault = match directory.credential(claim.user) {
            Some(_) => Fault::WrongSecret,
            None => Fault::UnknownUser,
        };
        let (begun, mut outcome) = match self.plan(directory, claim) {
            Plan::Answer(verdict) => return verdict,
            Plan::Await(begun, outcome) => (begun, outcome),
        };
        let pending = Pending { of: self, claim, begun };
        // The sender goes without a word only where the runtime ends.
        let found = outcome.wait_for(Option::is_some).await.map(|found| (*found).clone().flatten());
        match found {
            Ok(Some(secret)) => {
                pending.end(|logins, begun, now_us| match begun {
                    Some(begun) => logins.succeeded(begun, claim.client, claim.user, now_us),
                    None => logins.known(claim.client, claim.user, now_us),
                });
                Verdict::Right(Authenticated { user: claim.user.into(), secret })
            }
            Ok(None) => {
                pending.end(|logins, begun, now_us| {
                    if let Some(begun) = begun {
                        logins.failed(begun, claim.client, claim.user, now_us);
                    }
                });
                Verdict::Wrong(fault)
            }
            Err(_) => Verdict::Later(Hindrance::Busy),
        }
    }

    fn plan(self: &Arc<Self>, directory: &Directory, claim: Claim<'_>) -> Plan {
        let secrets = directory.credential(claim.user).map_or(&[][..], |credential| &credential.secrets);
        let now_us = self.now_us();
        let mut state = self.lock();
        let gate = state.logins.gate(claim.client, claim.user, now_us);
        if matches!(gate, Gate::Closed(_)) {
            return Plan::Answer(Verdict::Later(Hindrance::Throttled));
        }
        let known = secrets.iter().find(|secret| state.is_known(self.tag(claim, &[secret]), now_us));
        if let Some(secret) = known {
            self.hits.increment(1);
            state.logins.known(claim.client, claim.user, now_us);
            return Plan::Answer(Verdict::Right(Authenticated { user: claim.user.into(), secret: Arc::clone(secret) }));
        }
        self.misses.increment(1);
        let tag = self.tag(claim, secrets);
        if let Some(outcome) = state.under_way.get(&tag).cloned() {
            return Plan::Await(None, outcome);
        }
        if gate == Gate::KnownOnly {
            state.logins.guessed(claim.client, now_us);
            return Plan::Answer(Verdict::Later(Hindrance::Throttled));
        }
        if state.under_way.len() >= VERIFICATIONS_MAX {
            return Plan::Answer(Verdict::Later(Hindrance::Busy));
        }
        let begun = state.logins.begun(claim.client, claim.user, now_us);
        let (sender, outcome) = watch::channel(None);
        state.under_way.insert(tag, outcome.clone());
        self.waiting.set(gauge(state.under_way.len()));
        drop(state);
        self.begin(directory, claim, tag, sender);
        Plan::Await(Some(begun), outcome)
    }

    /// Verifies in a task of its own: the session that asked may end, and others may have joined it.
    fn begin(
        self: &Arc<Self>,
        directory: &Directory,
        claim: Claim<'_>,
        tag: Tag,
        sender: watch::Sender<Option<Found>>,
    ) {
        let known = directory.credential(claim.user).map(|credential| credential.secrets.clone());
        let is_known = known.is_some();
        // An unknown user is held against somebody's hash, which costs as much, and is wrong whatever comes out.
        let somebody = || directory.credentials().next().map(|credential| credential.secrets.clone());
        let hashes = known.or_else(somebody).unwrap_or_default();
        let secret = Zeroizing::new(claim.secret.to_vec());
        let (this, user): (_, Box<str>) = (Arc::clone(self), claim.user.into());
        tokio::spawn(async move {
            // Removed also where the verification panics: those who wait see the sender go.
            let _place = Place { of: &this, tag };
            let Ok(_core) = Arc::clone(&this.cores).acquire_owned().await else { return };
            let verified = tokio::task::spawn_blocking(move || {
                let found = hashes.iter().find(|hash| password::verify(hash, &secret)).cloned();
                (found.filter(|_| is_known), secret)
            });
            let Ok((found, secret)) = verified.await else { return };
            if let Some(hash) = &found {
                let claim = Claim { user: &user, secret: &secret, client: IpAddr::from([0; 4]) };
                let tag = this.tag(claim, std::slice::from_ref(hash));
                let now_us = this.now_us();
                this.lock().remember(tag, now_us);
            }
            // Nobody may be left to hear it.
            let _ = sender.send(Some(found));
        });
    }

    /// Of user, secret and hashes, each with its length, so that no two claims run into one.
    fn tag<S: AsRef<str>>(&self, claim: Claim<'_>, hashes: &[S]) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        let hashes = hashes.iter().map(|hash| hash.as_ref().as_bytes());
        for part in [claim.user.as_bytes(), claim.secret].into_iter().chain(hashes) {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        let mut tag = Tag::default();
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    fn now_us(&self) -> u64 {
        // Never 0: that stands for never.
        let passed = Instant::now().saturating_duration_since(self.since).as_micros();
        u64::try_from(passed).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_known(&mut self, tag: Tag, now_us: u64) -> bool {
        match self.known.get_mut(&tag) {
            Some(used_at_us) if is_fresh(*used_at_us, now_us) => {
                *used_at_us = now_us;
                true
            }
            _ => false,
        }
    }

    fn remember(&mut self, tag: Tag, now_us: u64) {
        if self.known.len() >= KNOWN_LOGINS_MAX {
            self.known.retain(|_, used_at_us| is_fresh(*used_at_us, now_us));
        }
        if self.known.len() >= KNOWN_LOGINS_MAX {
            let mut stays = false;
            self.known.retain(|_, _| {
                stays = !stays;
                stays
            });
        }
        self.known.insert(tag, now_us);
    }
}

fn is_fresh(used_at_us: u64, now_us: u64) -> bool {
    Duration::from_micros(now_us.saturating_sub(used_at_us)) < KNOWN_FOR
}

fn gauge(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

/// A try that must be ended, also where the session goes before its outcome is there.
struct Pending<'a> {
    of: &'a Authenticator,
    claim: Claim<'a>,
    begun: Option<Try>,
}

impl Pending<'_> {
    fn end(mut self, end: impl FnOnce(&mut Logins, Option<Try>, u64)) {
        let now_us = self.of.now_us();
        end(&mut self.of.lock().logins, self.begun.take(), now_us);
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            let now_us = self.of.now_us();
            self.of.lock().logins.given_up(begun, self.claim.client, self.claim.user, now_us);
        }
    }
}

/// The place of a verification; free again when it ends, however that is.
struct Place<'a> {
    of: &'a Authenticator,
    tag: Tag,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.of.lock();
        state.under_way.remove(&self.tag);
        self.of.waiting.set(gauge(state.under_way.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::password::weak_hash;
    use super::super::testing::{add_user, directory};
    use super::*;

    fn client(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    /// `app` with the secret `right`.
    fn one_user() -> Directory {
        let mut directory = directory(&[]);
        add_user(&mut directory, "app", &[&weak_hash("right")], &[]);
        directory
    }

    async fn ask(
        authenticator: &Arc<Authenticator>,
        directory: &Directory,
        user: &str,
        secret: &str,
        from: u8,
    ) -> Verdict {
        authenticator.verify(directory, Claim { user, secret: secret.as_bytes(), client: client(from) }).await
    }

    fn is_right(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Right(proof) if &*proof.user == "app")
    }

    #[tokio::test]
    async fn only_the_secret_of_a_known_user_is_right() {
        let (authenticator, directory) = (Authenticator::new(2), one_user());
        assert!(is_right(&ask(&authenticator, &directory, "app", "right", 1).await));
        let wrong = ask(&authenticator, &directory, "app", "wrong", 1).await;
        assert_eq!(wrong, Verdict::Wrong(Fault::WrongSecret));
        for user in ["App", "app ", "", "nobody"] {
            let unknown = ask(&authenticator, &directory, user, "right", 2).await;
            assert_eq!(unknown, Verdict::Wrong(Fault::UnknownUser), "{user}: somebody else's secret");
        }
        assert_eq!(authenticator.lock().under_way.len(), 0);
    }

    #[tokio::test]
    async fn either_of_two_live_secrets_is_right_and_the_proof_says_which() {
        let (old, new) = (weak_hash("old"), weak_hash("new"));
        let mut directory = directory(&[]);
        add_user(&mut directory, "app", &[&old, &new], &[]);
        let authenticator = Authenticator::new(1);
        for (secret, hash) in [("old", &old), ("new", &new), ("old", &old), ("new", &new)] {
            let proof = Authenticated { user: "app".into(), secret: hash.as_str().into() };
            assert_eq!(ask(&authenticator, &directory, "app", secret, 1).await, Verdict::Right(proof));
        }
    }

    #[tokio::test]
    async fn what_was_right_is_known_and_a_changed_hash_is_not() {
        let (authenticator, mut directory) = (Authenticator::new(1), one_user());
        assert!(is_right(&ask(&authenticator, &directory, "app", "right", 1).await));
        // No core is free any more: only what is known can be answered.
        authenticator.cores.forget_permits(1);
        assert!(is_right(&ask(&authenticator, &directory, "app", "right", 2).await));
        let again = password::hash(b"right");
        add_user(&mut directory, "app", &[&again], &[]);
        let asked = tokio::time::timeout(Duration::from_millis(1), ask(&authenticator, &directory, "app", "right", 2));
        assert!(asked.await.is_err(), "the same secret under another hash is verified anew");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_forgotten_ten_minutes_after_its_last_use() {
        let (authenticator, directory) = (Authenticator::new(1), one_user());
        assert!(is_right(&ask(&authenticator, &directory, "app", "right", 1).await));
        authenticator.cores.forget_permits(1);
        for _ in 0..5 {
            tokio::time::advance(KNOWN_FOR - Duration::from_secs(1)).await;
            assert!(is_right(&ask(&authenticator, &directory, "app", "right", 1).await));
        }
        tokio::time::advance(KNOWN_FOR).await;
        let asked = tokio::time::timeout(Duration::from_secs(1), ask(&authenticator, &directory, "app", "right", 1));
        assert!(asked.await.is_err());
    }

    #[tokio::test]
    async fn the_same_login_at_once_is_verified_once() {
        let (authenticator, directory) = (Authenticator::new(1), Arc::new(one_user()));
        authenticator.cores.forget_permits(1);
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..100 {
            let (authenticator, directory) = (Arc::clone(&authenticator), Arc::clone(&directory));
            asked.spawn(async move { ask(&authenticator, &directory, "app", "right", number).await });
        }
        // One thread: each of them runs until it waits, before this goes on.
        tokio::task::yield_now().await;
        assert_eq!(authenticator.lock().under_way.len(), 1);
        authenticator.cores.add_permits(1);
        assert!(asked.join_all().await.iter().all(is_right));
    }

    #[tokio::test]
    async fn a_full_line_says_later_and_a_session_that_left_frees_its_try() {
        let (authenticator, directory) = (Authenticator::new(1), one_user());
        authenticator.cores.forget_permits(1);
        for number in 0..VERIFICATIONS_MAX {
            let secret = format!("secret-{number}");
            let user = format!("user-{number}");
            let asked = ask(&authenticator, &directory, &user, &secret, u8::try_from(number % 250).unwrap());
            assert!(tokio::time::timeout(Duration::ZERO, asked).await.is_err());
        }
        let late = ask(&authenticator, &directory, "app", "right", 251).await;
        assert_eq!(late, Verdict::Later(Hindrance::Busy));
        authenticator.cores.add_permits(1);
        while !authenticator.lock().under_way.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(is_right(&ask(&authenticator, &directory, "app", "right", 251).await));
    }

    #[tokio::test]
    async fn who_guesses_is_put_off_and_who_works_here_is_not() {
        let (authenticator, directory) = (Authenticator::new(2), one_user());
        assert!(is_right(&ask(&authenticator, &directory, "app", "right", 1).await));
        for number in 0..5 {
            let wrong = ask(&authenticator, &directory, "app", &format!("guess-{number}"), 9).await;
            assert_eq!(wrong, Verdict::Wrong(Fault::WrongSecret));
        }
        let put_off = Verdict::Later(Hindrance::Throttled);
        assert_eq!(ask(&authenticator, &directory, "app", "right", 9).await, put_off, "even with the right secret");
        assert!(is_right(&ask(&authenticator, &directory, "app", "right", 1).await), "was right before");
        assert!(is_right(&ask(&authenticator, &directory, "app", "right", 2).await), "known to be right");
        assert_eq!(ask(&authenticator, &directory, "app", "guess", 3).await, put_off, "the name waits");
        let other = ask(&authenticator, &directory, "other", "guess", 3).await;
        assert_eq!(other, Verdict::Wrong(Fault::UnknownUser), "other names do not");
    }

    #[tokio::test]
    async fn the_memory_of_what_is_known_is_bounded() {
        let mut state = State::default();
        for number in 0..KNOWN_LOGINS_MAX + 10 {
            let mut tag = Tag::default();
            tag[..8].copy_from_slice(&number.to_be_bytes());
            state.remember(tag, 1);
        }
        assert!(state.known.len() <= KNOWN_LOGINS_MAX / 2 + 10, "{}", state.known.len());
    }
}
