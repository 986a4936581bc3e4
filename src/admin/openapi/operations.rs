//! Every operation of the admin API, one by one.

use serde_json::{Value, json};

/// One method of one path.
#[derive(Debug)]
pub(crate) struct Operation {
    /// In lower case.
    pub(crate) method: &'static str,
    /// As the router has it.
    pub(crate) path: &'static str,
    /// What it does.
    pub(crate) summary: &'static str,
    /// What may be asked besides the path.
    pub(crate) parameters: Vec<Parameter>,
    /// Whether it takes a change as its body, and whether it has to.
    pub(crate) body: Option<bool>,
    /// What it answers.
    pub(crate) answer: Answer,
    /// The statuses of its problems besides those of every operation.
    pub(crate) problems: &'static [u16],
}

/// What an operation answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// JSON of a schema.
    Json(&'static str),
    /// The same, or null.
    OrNull(&'static str),
    /// The same with an `ETag`.
    Tagged(&'static str),
    /// Nothing, with 204.
    Nothing,
    /// JSON that is nobody's but another program's.
    Object,
    /// Server-sent events, each with JSON of a schema.
    Stream(&'static str),
    /// Text of a media type.
    Text(&'static str),
}

/// Something that may be asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameter {
    name: &'static str,
    place: &'static str,
    kind: Kind,
    about: &'static str,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Key,
    Text,
    /// At least one letter.
    Name,
    Texts,
    /// From 1 to a limit.
    Limit(u32),
    /// The number of an event.
    Event,
    Generation,
    Hash,
    /// A key of the asker's.
    Once,
}

impl Parameter {
    /// A part of the path.
    pub(crate) fn in_path(name: &str) -> Self {
        match name {
            "id" => Self { name: "id", place: "path", kind: Kind::Name, about: "What waits" },
            "key" => Self { name: "key", place: "path", kind: Kind::Key, about: "The flag" },
            _ => Self { name: "action", place: "path", kind: Kind::Name, about: "What to do" },
        }
    }

    const fn query(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, place: "query", kind, about }
    }

    /// As the document has it.
    pub(crate) fn described(&self) -> Value {
        let Self { name, place, kind, about } = self;
        let schema = match kind {
            Kind::Key => json!({"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$"}),
            Kind::Text => json!({"type": "string"}),
            Kind::Name => json!({"type": "string", "minLength": 1}),
            Kind::Texts => json!({"type": "array", "items": {"type": "string"}}),
            Kind::Limit(most) => json!({"type": "integer", "minimum": 1, "maximum": most}),
            Kind::Event => json!({"type": "integer", "format": "int64"}),
            Kind::Generation => json!({"type": "string", "pattern": "^(\"[0-9]{1,19}\"|[*])$"}),
            Kind::Once => json!({"type": "string", "pattern": "^([!#-\\[\\]-~]{1,255}|\"[!#-\\[\\]-~]{1,255}\")$"}),
            Kind::Hash => json!({"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}),
        };
        json!({"name": name, "in": place, "required": *place == "path", "description": about, "schema": schema})
    }
}

const IF_MATCH: Parameter = Parameter {
    name: "if-match",
    place: "header",
    kind: Kind::Generation,
    about: "The ETag that the change is made on: 412 if it is another one by now",
};

const IDEMPOTENCY_KEY: Parameter = Parameter {
    name: "idempotency-key",
    place: "header",
    kind: Kind::Once,
    about: "A name of the asker's for this change: asked for again under it, it is not made again, and answered the same",
};

/// What a change may end with.
const CHANGE: &[u16] = &[404, 409, 412, 413, 415, 422, 503];

fn reads(path: &'static str, answer: Answer, summary: &'static str) -> Operation {
    let problems: &[u16] = if path.contains("{key}") { &[404] } else { &[] };
    Operation { method: "get", path, summary, parameters: Vec::new(), body: None, answer, problems }
}

impl Operation {
    fn asking(self, parameters: impl IntoIterator<Item = Parameter>) -> Self {
        Self { parameters: parameters.into_iter().collect(), ..self }
    }

    fn failing(self, problems: &'static [u16]) -> Self {
        Self { problems, ..self }
    }
}

fn acts(path: &'static str, summary: &'static str) -> Operation {
    let (parameters, answer) = (vec![IF_MATCH, IDEMPOTENCY_KEY], Answer::Tagged("Changed"));
    Operation { method: "post", path, summary, parameters, body: Some(false), answer, problems: CHANGE }
}

/// All of them.
pub(crate) fn operations() -> Vec<Operation> {
    let text = |name, about| Parameter::query(name, Kind::Text, about);
    let key = |about| Parameter::query("flag", Kind::Key, about);
    vec![
        reads("/health", Answer::Json("Health"), "Whether the process is alive"),
        reads("/ready", Answer::Json("Readiness"), "Whether requests are served, and what an operator should look at"),
        reads("/metrics", Answer::Text("application/openmetrics-text"), "Metrics, as OpenMetrics has them"),
        reads("/openapi.json", Answer::Object, "This document"),
        reads("/api/v1/flags", Answer::Json("FlagList"), "Every flag in force"),
        reads("/api/v1/flags/{key}", Answer::Tagged("FlagStatus"), "A flag with rollout, arms, evidence and rollback"),
        Operation {
            method: "patch",
            body: Some(true),
            answer: Answer::Tagged("Changed"),
            ..reads("/api/v1/flags/{key}", Answer::Object, "Moves the canary, or changes who is on the beta list")
        }
        .asking([IF_MATCH, IDEMPOTENCY_KEY])
        .failing(CHANGE),
        acts("/api/v1/flags/{key}/pause", "Holds the rollout where it is"),
        acts("/api/v1/flags/{key}/resume", "Lifts a pause or a rollback, at the percentage before it or a lower one"),
        acts("/api/v1/flags/{key}/promote", "Puts everyone on canary"),
        acts("/api/v1/flags/{key}/rollback", "Takes the canary out"),
        acts("/api/v1/flags/{key}/approve", "Opens the gate that the ramp waits at"),
        acts("/api/v1/flags/{key}/skip", "Goes on to the ramp's next step"),
        Operation {
            method: "post",
            body: Some(false),
            ..reads(
                "/api/v1/flags/{key}/approvals/{id}",
                Answer::Tagged("Changed"),
                "Does what another operator asked for, and waits",
            )
        }
        .asking([IDEMPOTENCY_KEY])
        .failing(CHANGE),
        Operation {
            method: "delete",
            ..reads("/api/v1/flags/{key}/approvals/{id}", Answer::Nothing, "Withdraws what waits for a second operator")
        }
        .failing(&[404, 503]),
        reads("/api/v1/approvals", Answer::Json("ApprovalList"), "What waits for a second operator")
            .asking([key("Of this flag alone")])
            .failing(&[404]),
        reads(
            "/api/v1/flags/{key}/explain",
            Answer::Json("Explanation"),
            "What would be decided about a request, and why",
        )
        .asking([
            text("user", "The targeting key"),
            text("method", "The method; GET without it"),
            text("path", "The path and its query, beginning with a slash"),
            text("host", "The host"),
            text("client", "The client's address"),
            Parameter::query("header", Kind::Texts, "Headers, each as `name:value`"),
        ]),
        reads(
            "/api/v1/flags/{key}/why",
            Answer::OrNull("Why"),
            "What the verdict rests on; null before the judge has looked",
        ),
        reads("/api/v1/flags/{key}/beta", Answer::Json("BetaPage"), "Who is on the beta list, a page at a time")
            .asking([
                Parameter::query("limit", Kind::Limit(10_000), "How many users"),
                text("cursor", "The `next` of the page before"),
            ]),
        reads(
            "/api/v1/flags/{key}/seconds",
            Answer::Json("SecondList"),
            "What was counted of a release, second by second",
        )
        .asking([
            text("release", "The release; the last one without it"),
            Parameter::query("since", Kind::Event, "From this second on, counted from 1970"),
        ])
        .failing(&[404, 503]),
        reads("/api/v1/flags/{key}/diffs", Answer::Json("Diffs"), "In what the canary answers otherwise than stable"),
        Operation {
            method: "post",
            ..reads(
                "/api/v1/config/reload",
                Answer::Json("Reloaded"),
                "Reads the configuration again, all of it or nothing",
            )
        }
        .asking([IDEMPOTENCY_KEY])
        .failing(&[409, 413, 422, 503]),
        reads("/api/v1/instances", Answer::Json("InstanceList"), "The gateways that share the store"),
        reads("/api/v1/events", Answer::Json("EventList"), "The audit trail, newest first")
            .asking([
                key("Of this flag alone"),
                Parameter::query("limit", Kind::Limit(1000), "How many events"),
                Parameter::query("before", Kind::Event, "Those before this event"),
                Parameter::query("after", Kind::Event, "Those after this event, oldest first"),
            ])
            .failing(&[404, 503]),
        reads("/api/v1/events/stream", Answer::Stream("Event"), "The audit trail as it grows")
            .asking([
                key("Of this flag alone"),
                Parameter {
                    name: "last-event-id",
                    place: "header",
                    kind: Kind::Event,
                    about: "Those after this event, instead of from now on",
                },
            ])
            .failing(&[404, 503]),
        reads("/api/v1/events/verify", Answer::Json("ChainReport"), "Whether the audit trail is whole")
            .asking([Parameter::query("hash", Kind::Hash, "A hash that was noted, which has to be in it")])
            .failing(&[503]),
        reads(
            "/api/v1/export/flagd",
            Answer::Json("FlagdExport"),
            "Flags as flagd has them, and what could not be said",
        )
        .asking([Parameter::query("flag", Kind::Texts, "Flags; all without it")])
        .failing(&[404, 503]),
    ]
}
