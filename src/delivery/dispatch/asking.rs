//! What the daemon and operators ask of the dispatcher, as calls that wait for the answer.

use tokio::sync::oneshot;

use super::{Dispatcher, Ended, LINE_PAUSE, Request};
use crate::policy::lane::WarmupOrder;
use crate::queue::{DueJob, HeldJob};
use crate::scheduler::explanation::{LaneCounts, Question, SiteExplanation};
use crate::scheduler::warmup::{SourceStanding, WarmupEntry, WarmupFilter};
use crate::scheduler::{Command, Verdict, Whereabouts};

impl Dispatcher {
    /// Applies a command; returns how many jobs took it. The others are in flight, or no longer as they were seen. Waits
    /// while many settlements are in line.
    pub async fn command(&self, jobs: Vec<DueJob>, command: Command) -> Result<usize, Ended> {
        self.ask_for_settlements(|reply| Request::Command { jobs: jobs.clone(), command: command.clone(), reply }).await
    }

    /// Releases or cancels held jobs; returns how many. Waits while many settlements are in line.
    pub async fn settle_held(&self, jobs: Vec<HeldJob>, verdict: Verdict) -> Result<usize, Ended> {
        self.ask_for_settlements(|reply| Request::Held { jobs: jobs.clone(), verdict: verdict.clone(), reply }).await
    }

    /// Asks again while the answer is that too many settlements wait.
    async fn ask_for_settlements(
        &self,
        request: impl Fn(oneshot::Sender<Option<usize>>) -> Request,
    ) -> Result<usize, Ended> {
        loop {
            let (reply, answer) = oneshot::channel();
            self.request(request(reply)).await?;
            if let Some(took) = answer.await.map_err(|_| Ended)? {
                return Ok(took);
            }
            tokio::time::sleep(LINE_PAUSE).await;
        }
    }

    /// Asks where jobs are.
    pub async fn locate(&self, jobs: Vec<DueJob>) -> Result<Vec<Option<Whereabouts>>, Ended> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Locate { jobs, reply }).await?;
        answer.await.map_err(|_| Ended)
    }

    /// Asks how mail goes somewhere; `None`: no site of that name is known.
    pub async fn explain(&self, question: Question) -> Result<Option<SiteExplanation>, Ended> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Explain { question, reply }).await?;
        answer.await.map_err(|_| Ended)
    }

    /// Asks how warm-ups and sources stand.
    pub async fn warmups(&self, filter: WarmupFilter) -> Result<(Vec<WarmupEntry>, Vec<SourceStanding>), Ended> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Warmups { filter, reply }).await?;
        answer.await.map_err(|_| Ended)
    }

    /// Tells warm-ups what an operator wants; how many that were.
    pub async fn order_warmup(&self, filter: WarmupFilter, order: WarmupOrder) -> Result<usize, Ended> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::OrderWarmup { filter, order, reply }).await?;
        answer.await.map_err(|_| Ended)
    }

    /// Asks for lanes in numbers.
    pub async fn lane_counts(&self) -> Result<LaneCounts, Ended> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::LaneCounts(reply)).await?;
        answer.await.map_err(|_| Ended)
    }
}
