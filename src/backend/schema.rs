//! The tables as Diesel sees them; `migrations/interview` creates them.

diesel::table! {
    /// The question bank.
    questions (id) {
        /// A stable slug.
        id -> Text,
        /// What is asked.
        text -> Text,
        /// Kind of question, as in `bank::Category`.
        category -> Text,
        /// `easy`, `medium` or `hard`.
        difficulty -> Text,
        /// How often the question was handed out.
        usage_count -> BigInt,
    }
}

diesel::table! {
    /// The roles that a question suits.
    question_roles (role, question_id) {
        /// A role's slug.
        role -> Text,
        /// The question.
        question_id -> Text,
    }
}

diesel::table! {
    /// The skills that a question probes.
    question_skills (question_id, skill) {
        /// The question.
        question_id -> Text,
        /// A skill's name.
        skill -> Text,
    }
}

diesel::joinable!(question_roles -> questions (question_id));
diesel::joinable!(question_skills -> questions (question_id));
diesel::allow_tables_to_appear_in_same_query!(questions, question_roles, question_skills);
