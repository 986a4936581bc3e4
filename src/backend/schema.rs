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
        /// 1 for easy to 3 for hard.
        difficulty_rank -> BigInt,
        /// How sharply the question tells abilities apart, above 0: `a` of the two-parameter logistic model.
        discrimination -> Double,
        /// The ability at which half of the answers are good: `b` of the model.
        location -> Double,
        /// The text in lower case.
        search -> Text,
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

diesel::table! {
    /// Interview sessions.
    sessions (id) {
        /// A random UUID.
        id -> Text,
        /// Whose it is.
        user_id -> Text,
        /// A role's slug.
        role -> Text,
        /// What the questions are to suit.
        job_description -> Text,
        /// `easy`, `medium` or `hard`, if only such questions are wanted.
        difficulty -> Nullable<Text>,
        /// `adaptive` or `fixed`.
        plan -> Text,
        /// The most questions.
        question_limit -> BigInt,
        /// `active`, `completed` or `abandoned`.
        status -> Text,
        /// What is known of the user's ability.
        ability -> Double,
        /// How sure that is.
        standard_error -> Double,
        /// Microseconds since 1970.
        started_at -> BigInt,
        /// Microseconds since 1970.
        ended_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// The questions of sessions, with their answers.
    session_questions (session_id, position) {
        /// The session.
        session_id -> Text,
        /// The question's place in it, from 0.
        position -> BigInt,
        /// The question.
        question_id -> Text,
        /// What was answered.
        answer -> Nullable<Text>,
        /// From 0 to 100.
        score -> Nullable<BigInt>,
        /// The analysis as JSON.
        analysis -> Nullable<Text>,
        /// What was known of the ability after the answer.
        ability -> Nullable<Double>,
        /// How sure that was.
        standard_error -> Nullable<Double>,
        /// Microseconds since 1970.
        answered_at -> Nullable<BigInt>,
    }
}

diesel::joinable!(session_questions -> questions (question_id));
diesel::joinable!(session_questions -> sessions (session_id));
diesel::joinable!(question_roles -> questions (question_id));
diesel::joinable!(question_skills -> questions (question_id));
diesel::allow_tables_to_appear_in_same_query!(questions, question_roles, question_skills, session_questions, sessions);
