//! Made-up sequences of requests: whatever they are, both modes on both databases answer alike and leave the same rows.
//!
//! A few sequences each time; `TIDEGATE_PARITY_SEQUENCES=1000` makes it as many. A difference is shrunk to the shortest
//! sequence that still shows it.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::backend::running::{Data, Running, every};

const SEQUENCES: u32 = 12;

/// Puts a database back to what it was after the start.
const RESET: [&str; 4] = [
    "DELETE FROM session_questions",
    "DELETE FROM sessions",
    "DELETE FROM questions WHERE id LIKE 'made-up-%'",
    "UPDATE questions SET usage_count = 0",
];

/// A request, told by what it does.
#[derive(Debug, Clone)]
enum Step {
    Take { role: &'static str, description: &'static str, count: i64, difficulty: Option<&'static str> },
    Upsert { ids: Vec<u8>, text: &'static str, on_conflict: &'static str, all_or_nothing: bool },
    List { query: &'static str, limit: u8 },
    Start { user: u8, plan: &'static str, limit: i64, difficulty: Option<&'static str> },
    Answer { user: u8, which: usize, answer: &'static str, all: bool },
    Act { user: u8, action: &'static str },
    Look { user: u8, path: &'static str },
}

fn step() -> impl Strategy<Value = Step> {
    let role = || prop::sample::select(vec!["Backend Engineer", "SRE", "astronaut", "qa", "'; --", "İstanbul dev"]);
    let prose = || {
        prop::sample::select(vec![
            "Rust, PostgreSQL and Kafka",
            "first we measured 40 ms, then I added an index, because of PostgreSQL",
            "x",
            " ",
            "ünï€ode 日本語 \u{7}",
            "nul \u{0} byte",
        ])
    };
    let difficulty = || prop::option::of(prop::sample::select(vec!["easy", "medium", "hard", "brutal"]));
    let user = || 0..3_u8;
    prop_oneof![
        (role(), prose(), 0..23_i64, difficulty()).prop_map(|(role, description, count, difficulty)| Step::Take {
            role,
            description,
            count,
            difficulty
        }),
        (
            prop::collection::vec(0..6_u8, 0..5),
            prose(),
            prop::sample::select(vec!["update", "skip", "fail", "other"]),
            any::<bool>()
        )
            .prop_map(|(ids, text, on_conflict, all_or_nothing)| Step::Upsert {
                ids,
                text,
                on_conflict,
                all_or_nothing
            }),
        (
            prop::sample::select(vec![
                "sort=-usageCount,difficulty",
                "text=INDEX&sort=-id",
                "role=qa,backend&minUsage=1",
                "skill=Rust&difficulty=hard,easy&sort=category",
                "id=made-up-1,made-up-2",
                "sort=nothing",
            ]),
            0..60_u8
        )
            .prop_map(|(query, limit)| Step::List { query, limit }),
        (user(), prop::sample::select(vec!["adaptive", "fixed"]), 0..5_i64, difficulty())
            .prop_map(|(user, plan, limit, difficulty)| Step::Start { user, plan, limit, difficulty }),
        (user(), 0..3_usize, prose(), any::<bool>()).prop_map(|(user, which, answer, all)| Step::Answer {
            user,
            which,
            answer,
            all
        }),
        (user(), prop::sample::select(vec!["abandon", "resume"])).prop_map(|(user, action)| Step::Act { user, action }),
        (user(), prop::sample::select(vec!["", "/analysis", "?status=abandoned&limit=2"]))
            .prop_map(|(user, path)| Step::Look { user, path }),
    ]
}

/// One backend, and what a client of it remembers.
struct Side {
    running: Running,
    data: Data,
    name: String,
    /// The ids of all sessions, in the order in which they began.
    sessions: Vec<String>,
    /// The last session of each user, and the questions that it last had open.
    last: [Option<(String, Vec<String>)>; 3],
}

impl Side {
    async fn reset(&mut self) {
        for statement in RESET {
            self.data.execute(statement).await;
        }
        self.sessions.clear();
        self.last = [None, None, None];
    }

    /// Does a step, and gives what was answered, without what differs from run to run.
    async fn take(&mut self, step: &Step) -> String {
        let session = |user: u8| self.last[usize::from(user)].clone().unwrap_or(("none".to_owned(), Vec::new()));
        let (method, path, user, body) = match step {
            Step::Take { role, description, count, difficulty } => {
                let body =
                    json!({"role": role, "jobDescription": description, "count": count, "difficulty": difficulty});
                (Method::POST, "/api/v1/parse-jd".to_owned(), None, Some(body))
            }
            Step::Upsert { ids, text, on_conflict, all_or_nothing } => {
                let row = |id: &u8| {
                    json!({"id": format!("made-up-{id}"), "text": text, "category": "technical",
                           "difficulty": (if id.is_multiple_of(2) { "easy" } else { "hard" }), "roles": ["qa", "backend"],
                           "skills": [format!("skill {id}")], "location": f64::from(*id) / 3.0})
                };
                let rows: Vec<Value> = ids.iter().map(row).collect();
                let body = json!({"questions": rows, "onConflict": on_conflict, "allOrNothing": all_or_nothing});
                (Method::PUT, "/api/v1/questions".to_owned(), None, Some(body))
            }
            Step::List { query, limit } => {
                (Method::GET, format!("/api/v1/questions?limit={limit}&{query}"), None, None)
            }
            Step::Start { user, plan, limit, difficulty } => {
                let body = json!({"role": "Backend", "jobDescription": "Rust", "plan": plan, "questionLimit": limit,
                                  "difficulty": difficulty});
                (Method::POST, "/api/v1/sessions".to_owned(), Some(*user), Some(body))
            }
            Step::Answer { user, which, answer, all } => {
                let (id, open) = session(*user);
                let one = |question: &String| json!({"questionId": question, "answer": answer});
                let body = if *all {
                    json!({"answers": open.iter().map(one).collect::<Vec<_>>()})
                } else {
                    one(&open.get(*which).or(open.first()).cloned().unwrap_or_else(|| "none".to_owned()))
                };
                (Method::POST, format!("/api/v1/sessions/{id}/answers"), Some(*user), Some(body))
            }
            Step::Act { user, action } => {
                (Method::POST, format!("/api/v1/sessions/{}/{action}", session(*user).0), Some(*user), None)
            }
            Step::Look { user, path } if path.starts_with('?') => {
                (Method::GET, format!("/api/v1/sessions{path}"), Some(*user), None)
            }
            Step::Look { user, path } => {
                (Method::GET, format!("/api/v1/sessions/{}{path}", session(*user).0), Some(*user), None)
            }
        };
        let mut request = self.running.client.request(method, format!("{}{path}", self.running.base));
        if let Some(user) = user {
            request = request.header("x-user-id", format!("user {user}"));
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let mut answer: Value = response.json().await.unwrap();
        if let (Some(user), true) = (user, status < 300) {
            self.remember(user, &answer);
        }
        timeless(&mut answer);
        let mut text = format!("{status} {answer}");
        for (number, id) in self.sessions.iter().enumerate() {
            text = text.replace(id, &format!("SESSION-{number}"));
        }
        text
    }

    fn remember(&mut self, user: u8, answer: &Value) {
        let session = answer.get("session").unwrap_or(answer);
        let (Some(id), Some(open)) = (session["id"].as_str(), session["open"].as_array()) else { return };
        if !self.sessions.iter().any(|known| known == id) {
            self.sessions.push(id.to_owned());
        }
        let open: Vec<String> = open.iter().map(|question| question["id"].as_str().unwrap().to_owned()).collect();
        let last = &mut self.last[usize::from(user)];
        // Questions that were answered are remembered, so that answers are repeated, too.
        match last {
            Some((known, questions)) if known == id && open.is_empty() => questions.clear(),
            Some((known, questions)) if known == id => {
                questions.extend(open.into_iter().filter(|new| !questions.contains(new)).collect::<Vec<_>>());
            }
            _ => *last = Some((id.to_owned(), open)),
        }
    }
}

/// Takes moments, and the cursors that hold them, out of an answer.
fn timeless(value: &mut Value) {
    match value {
        Value::Object(object) => {
            let of_sessions = object.contains_key("sessions");
            for (name, value) in object {
                if !value.is_null() && (name.ends_with("edAt") || (of_sessions && name == "next")) {
                    *value = json!("MOMENT");
                }
                timeless(value);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(timeless),
        _ => {}
    }
}

#[test]
fn made_up_sequences_show_no_difference() {
    #[expect(clippy::disallowed_methods, reason = "a tester asks for more by the environment")]
    let asked = std::env::var("TIDEGATE_PARITY_SEQUENCES").ok();
    let cases = asked.map_or(SEQUENCES, |number| number.parse().unwrap());
    let runtime = Runtime::new().unwrap();
    let mut four = Vec::new();
    for (kind, mode) in every() {
        four.push(runtime.block_on(async {
            let data = Data::new(kind).await;
            let running = Running::plain(mode, &data).await;
            Side { running, data, name: format!("{mode} on {kind:?}"), sessions: Vec::new(), last: [None, None, None] }
        }));
    }
    let four = std::cell::RefCell::new(four);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let outcome = TestRunner::new(config).run(&prop::collection::vec(step(), 1..16), |steps| {
        let mut four = four.borrow_mut();
        runtime.block_on(async {
            for side in four.iter_mut() {
                side.reset().await;
            }
            let [first, others @ ..] = four.as_mut_slice() else { panic!("there are four") };
            for step in &steps {
                let said = first.take(step).await;
                for other in others.iter_mut() {
                    prop_assert_eq!(&said, &other.take(step).await, "{:?} by {}", step, other.name);
                }
            }
            let rows = first.data.rows().await;
            for other in others.iter() {
                prop_assert_eq!(&rows, &other.data.rows().await, "the rows of {}", other.name);
            }
            Ok(())
        })
    });
    runtime.block_on(async {
        for side in four.into_inner() {
            side.running.stop().await;
        }
    });
    outcome.unwrap();
}
