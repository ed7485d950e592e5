//! Waiting for jobs. Who goes away gives the job up.

use crate::app::App;
use crate::http::ApiError;
use crate::queue::{Job, Queue};
use crate::work::{Output, Terms, Work};
use std::sync::Arc;

/// Somebody who waits for a job. Dropped before it is over, it gives the job up: hyper drops a handler, and the stream of a response, when the client is gone.
pub struct Waiting {
    queue: Arc<dyn Queue>,
    job: Arc<Job>,
}

impl Waiting {
    /// Submit a work and wait for it.
    ///
    /// # Errors
    /// The queue does not take it.
    pub fn submit(app: &App, work: Work, terms: Terms) -> Result<Self, ApiError> {
        log(app, &work);
        let job = app.queue.submit(work, terms).map_err(ApiError::of_refusal)?;
        Ok(Waiting { queue: app.queue.clone(), job })
    }

    /// The job.
    pub fn job(&self) -> &Arc<Job> {
        &self.job
    }

    /// What comes of it.
    ///
    /// # Errors
    /// Why it was not done.
    pub async fn outcome(&self) -> Result<Arc<Output>, ApiError> {
        Ok(self.job.outcome().await?)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.job.is_over() {
            self.queue.cancel(&self.job.id);
        }
    }
}

/// Log what is asked, where that was asked for.
pub fn log(app: &App, work: &Work) {
    if !app.options.log_prompts {
        return;
    }
    match work {
        Work::Draw(draw) => tracing::info!("prompt: {:?}", draw.request.prompt),
        Work::Describe(describe) => {
            let question = describe.said.last().map(|said| said.text.as_str());
            tracing::info!("question: {:?}", question.unwrap_or_default());
        }
    }
}
