//! Lists of questions, and many of them written at once.

use std::collections::BTreeSet;

use reqwest::Response;
use serde_json::{Value, json};

use crate::backend::running::{Data, KINDS, MODES, Running, every};

const QUESTIONS: &str = "/api/v1/questions";

async fn put(running: &Running, body: &Value) -> Response {
    running.client.put(format!("{}{QUESTIONS}", running.base)).json(body).send().await.unwrap()
}

/// Every question of a list, page by page, as `show` shows it; the pages are asserted to be as long as they may be.
async fn pages(running: &Running, query: &str, limit: usize, show: fn(&Value) -> String) -> Vec<String> {
    let mut shown = Vec::new();
    let mut page = running.json(&format!("{QUESTIONS}?limit={limit}&{query}")).await;
    loop {
        let questions = page["questions"].as_array().unwrap_or_else(|| panic!("{query}: {page}"));
        shown.extend(questions.iter().map(show));
        let Some(cursor) = page["next"].as_str() else { return shown };
        assert_eq!(questions.len(), limit, "{query}");
        page = running.json(&format!("{QUESTIONS}?cursor={cursor}")).await;
    }
}

fn id(question: &Value) -> String {
    question["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_sorted_and_paged_alike() {
    const QUERIES: [&str; 10] = [
        "",
        "sort=-difficulty,usageCount,-id",
        "sort=category,-discrimination,difficulty",
        "role=backend,qa&difficulty=hard",
        "skill=Rust,PostgreSQL&sort=-usageCount",
        "text=DATABASE",
        "text=%25%25",
        "category=behavioral&minUsage=1",
        "minUsage=1&maxUsage=1&sort=-usageCount",
        "id=qa-bug-report,backend-connection-pool,nothing",
    ];
    let mut expected: Option<Vec<Vec<String>>> = None;
    for (kind, mode) in every() {
        let data = Data::new(kind).await;
        let running = Running::plain(mode, &data).await;
        for role in ["backend", "qa", "backend"] {
            let asked = json!({"role": role, "jobDescription": "Rust, Python", "count": 9});
            assert_eq!(running.post("/api/v1/parse-jd", &asked).await.status(), 200);
        }
        let mut found = Vec::new();
        for query in QUERIES {
            let whole = pages(&running, query, 200, Value::to_string).await;
            assert_eq!(whole, pages(&running, query, 7, Value::to_string).await, "{query}");
            found.push(whole);
        }
        assert!(found[0].len() >= 72 && !found[3].is_empty() && found[6].is_empty(), "{found:?}");
        assert_eq!(found[9].len(), 2);
        match &expected {
            None => expected = Some(found),
            Some(expected) => assert_eq!(&found, expected, "{kind:?} {mode}"),
        }
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paging_neither_repeats_nor_misses_while_questions_come_and_go() {
    for (kind, mode) in every() {
        let data = Data::new(kind).await;
        let running = Running::plain(mode, &data).await;
        let before: BTreeSet<String> = pages(&running, "", 200, id).await.into_iter().collect();
        let mut seen = Vec::new();
        let mut page = running.json(&format!("{QUESTIONS}?limit=10&sort=category,id")).await;
        for round in 0.. {
            seen.extend(page["questions"].as_array().unwrap().iter().map(id));
            let Some(cursor) = page["next"].as_str() else { break };
            // One that comes before what was seen, and one that comes at the very end.
            for (name, category) in [("a", "behavioral"), ("z", "technical")] {
                let row = json!({"id": format!("{name}{round}"), "text": "New?", "category": category,
                                 "difficulty": "easy", "roles": ["qa"], "skills": []});
                assert_eq!(put(&running, &json!({"questions": [row]})).await.status(), 200);
            }
            page = running.json(&format!("{QUESTIONS}?cursor={cursor}")).await;
        }
        let distinct: BTreeSet<String> = seen.iter().cloned().collect();
        assert_eq!(distinct.len(), seen.len(), "{kind:?} {mode}: a question came twice");
        assert!(distinct.is_superset(&before), "{kind:?} {mode}: a question was missed");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_rows_go_in_at_once_or_are_told_by_row() {
    let mut rows = Vec::new();
    for (kind, mode) in every() {
        let data = Data::new(kind).await;
        let running = Running::plain(mode, &data).await;
        let row = |number: usize| {
            json!({"id": format!("bulk-{number:05}"), "text": format!("Why {number}? Ünïcode '\"%"),
                   "category": "technical", "difficulty": "medium", "roles": ["qa", "backend"],
                   "skills": ["Rust", format!("skill {}", number % 10)], "discrimination": 0.1 + 0.2})
        };
        let mut bulk: Vec<Value> = (0..10_000).map(row).collect();
        bulk[17] = json!({"id": "bulk-00017", "text": " ", "category": "technical", "difficulty": "medium",
                          "roles": [], "skills": []});
        bulk[4_321]["id"] = json!("bulk-00000");
        let answer = put(&running, &json!({"questions": bulk})).await;
        assert_eq!(answer.status(), 207, "{kind:?} {mode}");
        let told: Value = answer.json().await.unwrap();
        assert_eq!((&told["inserted"], &told["updated"]), (&json!(9_998), &json!(0)), "{told}");
        assert_eq!(
            told["errors"],
            json!([{"row": 17, "field": "text", "message": "must not be blank"},
                   {"row": 17, "field": "roles", "message": told["errors"][1]["message"]},
                   {"row": 4321, "field": "id", "message": "is that of row 0 as well"}])
        );
        assert_eq!(data.number("SELECT COUNT(*) FROM question_roles WHERE question_id LIKE 'bulk-%'").await, 19_996);

        // Once more, the bad rows mended: what is there is replaced, its count is kept, and nothing is left of its skills.
        data.execute("UPDATE questions SET usage_count = 5 WHERE id = 'bulk-00000'").await;
        let mut mended: Vec<Value> = [0, 17, 4_321].into_iter().chain(100..200).map(row).collect();
        mended[0]["skills"] = json!(["Go"]);
        let told: Value = put(&running, &json!({"questions": mended})).await.json().await.unwrap();
        assert_eq!(told, json!({"inserted": 2, "updated": 101, "skipped": 0, "errors": []}), "{kind:?} {mode}");
        let first = running.json(&format!("{QUESTIONS}?id=bulk-00000")).await;
        assert_eq!(
            (&first["questions"][0]["usageCount"], &first["questions"][0]["skills"]),
            (&json!(5), &json!(["Go"]))
        );

        // What is there may also be left alone, or be an error; with all or nothing, nothing is written then.
        let two = json!([row(3), row(20_000)]);
        let asked = json!({"questions": two, "onConflict": "fail", "allOrNothing": true});
        let answer = put(&running, &asked).await;
        assert_eq!(answer.status(), 422, "{kind:?} {mode}");
        let told: Value = answer.json().await.unwrap();
        assert_eq!(told["inserted"], 0);
        assert_eq!(told["errors"], json!([{"row": 0, "field": "id", "message": "is there already"}]));
        let told: Value = put(&running, &json!({"questions": two, "onConflict": "skip"})).await.json().await.unwrap();
        assert_eq!(told, json!({"inserted": 1, "updated": 0, "skipped": 1, "errors": []}));

        rows.push(data.rows().await);
        running.stop().await;
    }
    assert!(rows.iter().all(|other| *other == rows[0]), "the rows differ");
    assert_eq!(rows.len(), KINDS.len() * MODES.len());
}
