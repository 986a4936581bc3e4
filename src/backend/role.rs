//! The roles that the question bank knows, and how a job title maps to one.

use serde::Deserialize;

/// A role that questions are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    Backend,
    Frontend,
    FullStack,
    DataEngineer,
    DataScientist,
    MachineLearning,
    Devops,
    Mobile,
    Security,
    Qa,
    ProductManager,
    EngineeringManager,
    /// Suits everybody; what an unknown title falls to.
    General,
}

impl Role {
    /// Every role.
    pub(crate) const ALL: [Self; 13] = [
        Self::Backend,
        Self::Frontend,
        Self::FullStack,
        Self::DataEngineer,
        Self::DataScientist,
        Self::MachineLearning,
        Self::Devops,
        Self::Mobile,
        Self::Security,
        Self::Qa,
        Self::ProductManager,
        Self::EngineeringManager,
        Self::General,
    ];

    /// The name in the database and in answers.
    pub(crate) const fn slug(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Frontend => "frontend",
            Self::FullStack => "full-stack",
            Self::DataEngineer => "data-engineer",
            Self::DataScientist => "data-scientist",
            Self::MachineLearning => "machine-learning",
            Self::Devops => "devops",
            Self::Mobile => "mobile",
            Self::Security => "security",
            Self::Qa => "qa",
            Self::ProductManager => "product-manager",
            Self::EngineeringManager => "engineering-manager",
            Self::General => "general",
        }
    }

    /// The role that a job title means, whatever its case, punctuation and seniority.
    pub(crate) fn from_title(title: &str) -> Self {
        let words = words(title);
        PHRASES.iter().find(|(phrase, _)| words.contains(phrase)).map_or(Self::General, |(_, role)| *role)
    }
}

/// Phrases of whole words and the role they mean; the first that occurs decides, so the narrow ones lead.
const PHRASES: &[(&str, Role)] = &[
    (" product manager ", Role::ProductManager),
    (" product owner ", Role::ProductManager),
    (" product lead ", Role::ProductManager),
    (" head of product ", Role::ProductManager),
    (" engineering manager ", Role::EngineeringManager),
    (" engineering lead ", Role::EngineeringManager),
    (" head of engineering ", Role::EngineeringManager),
    (" director of engineering ", Role::EngineeringManager),
    (" vp of engineering ", Role::EngineeringManager),
    (" development manager ", Role::EngineeringManager),
    (" full stack ", Role::FullStack),
    (" fullstack ", Role::FullStack),
    (" machine learning ", Role::MachineLearning),
    (" deep learning ", Role::MachineLearning),
    (" ml ", Role::MachineLearning),
    (" mlops ", Role::MachineLearning),
    (" ai ", Role::MachineLearning),
    (" nlp ", Role::MachineLearning),
    (" data scientist ", Role::DataScientist),
    (" data science ", Role::DataScientist),
    (" data analyst ", Role::DataScientist),
    (" statistician ", Role::DataScientist),
    (" data engineer ", Role::DataEngineer),
    (" data engineering ", Role::DataEngineer),
    (" data platform ", Role::DataEngineer),
    (" analytics engineer ", Role::DataEngineer),
    (" etl ", Role::DataEngineer),
    (" security ", Role::Security),
    (" appsec ", Role::Security),
    (" infosec ", Role::Security),
    (" penetration ", Role::Security),
    (" pentester ", Role::Security),
    (" devsecops ", Role::Security),
    (" qa ", Role::Qa),
    (" sdet ", Role::Qa),
    (" quality ", Role::Qa),
    (" test ", Role::Qa),
    (" tester ", Role::Qa),
    (" testing ", Role::Qa),
    (" mobile ", Role::Mobile),
    (" ios ", Role::Mobile),
    (" android ", Role::Mobile),
    (" flutter ", Role::Mobile),
    (" react native ", Role::Mobile),
    (" front end ", Role::Frontend),
    (" frontend ", Role::Frontend),
    (" ui ", Role::Frontend),
    (" web ", Role::Frontend),
    (" react ", Role::Frontend),
    (" back end ", Role::Backend),
    (" backend ", Role::Backend),
    (" server side ", Role::Backend),
    (" api ", Role::Backend),
    (" devops ", Role::Devops),
    (" sre ", Role::Devops),
    (" site reliability ", Role::Devops),
    (" reliability ", Role::Devops),
    (" platform ", Role::Devops),
    (" infrastructure ", Role::Devops),
    (" cloud ", Role::Devops),
];

/// The title's words in lower case, each between single blanks, so that a phrase can be found as whole words.
fn words(title: &str) -> String {
    let mut words = String::with_capacity(title.len().saturating_add(2));
    words.push(' ');
    for character in title.chars().flat_map(char::to_lowercase) {
        if character.is_alphanumeric() {
            words.push(character);
        } else if !words.ends_with(' ') {
            words.push(' ');
        }
    }
    if !words.ends_with(' ') {
        words.push(' ');
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(title: &str, expected: Role) {
        assert_eq!(Role::from_title(title), expected, "{title}");
    }

    #[test]
    fn titles_map_to_roles() {
        check("Backend Engineer", Role::Backend);
        check("backend developer", Role::Backend);
        check("Senior Back-End Developer (Rust)", Role::Backend);
        check("  BACKEND  ", Role::Backend);
        check("Front-end Engineer", Role::Frontend);
        check("React Developer", Role::Frontend);
        check("React Native Developer", Role::Mobile);
        check("Full-Stack Engineer", Role::FullStack);
        check("Fullstack dev", Role::FullStack);
        check("Data Engineer II", Role::DataEngineer);
        check("Data Scientist", Role::DataScientist);
        check("ML Engineer", Role::MachineLearning);
        check("Machine Learning Platform Engineer", Role::MachineLearning);
        check("SRE", Role::Devops);
        check("DevOps/SRE", Role::Devops);
        check("Site-Reliability Engineer", Role::Devops);
        check("Platform Engineer", Role::Devops);
        check("iOS Engineer", Role::Mobile);
        check("Application Security Engineer", Role::Security);
        check("QA Engineer", Role::Qa);
        check("Test Automation Engineer", Role::Qa);
        check("Engineering Manager, Backend", Role::EngineeringManager);
        check("Product Manager", Role::ProductManager);
    }

    #[test]
    fn unknown_titles_are_general() {
        for title in ["Astronaut", "Backendish", "Squirrel", "Maintainer", "", "—", "Écrivain"] {
            check(title, Role::General);
        }
    }

    #[test]
    fn a_slug_is_a_title_of_its_own_role() {
        for (_, role) in PHRASES {
            check(role.slug(), *role);
        }
    }
}
