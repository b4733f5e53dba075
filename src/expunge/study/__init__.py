"""Study: people rate the pictures of audits, blind to what made them (ESD's Figure 6; Gandikota et al. 2023)."""
