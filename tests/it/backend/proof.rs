//! Many clients raise the same questions' counts, and not one raise is lost.
//!
//! A few rounds each time; `TIDEGATE_PROOF_SECONDS=30` makes it that long.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate::clock;
use tokio::task::JoinSet;

use crate::backend::running::{Data, Kind, MODES, PARSE_JD, Running};

const CLIENTS: usize = 200;

/// Requests of each client when nobody asks for more.
const ROUNDS: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_lose_no_raise() {
    #[expect(clippy::disallowed_methods, reason = "a tester asks for more by the environment")]
    let asked = std::env::var("TIDEGATE_PROOF_SECONDS").ok();
    let time = asked.map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
    for mode in MODES {
        let data = Data::new(Kind::Postgres).await;
        let running = Running::plain(mode, &data).await;
        let end = time.map(|time| clock::now() + time);
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (client, url) = (running.client.clone(), format!("{}{PARSE_JD}", running.base));
            clients.spawn(async move {
                let asked = json!({"role": "backend", "jobDescription": "Rust, PostgreSQL", "count": 5});
                let (mut raised, mut rounds) = (0_i64, 0);
                while end.map_or(rounds < ROUNDS, |end| clock::now() < end) {
                    let response = client.post(&url).json(&asked).send().await.unwrap();
                    assert_eq!(response.status(), 200);
                    let answer: Value = response.json().await.unwrap();
                    raised += i64::try_from(answer["questions"].as_array().unwrap().len()).unwrap();
                    rounds += 1;
                }
                raised
            });
        }
        let raised: i64 = clients.join_all().await.into_iter().sum();
        assert!(raised >= i64::try_from(CLIENTS).unwrap() * 5, "{mode}: {raised}");
        assert_eq!(data.usage_sum().await, raised, "{mode}");
        let told = running.json("/monitoring/database").await;
        assert_eq!(told["queries"]["errors"], 0, "{mode}: {told}");
        running.stop().await;
    }
}
