"""The book's own tools: what draws, sums up, judges, runs and describes; the one room that may use all others.

It measures nothing: what it draws or says comes from recorded rows (`cmxlib.study.records`) or from a chapter's run.
A figure, a table and a judge are functions of rows (DataFrames), and name the patch size where they judge one network.

- A figure: a function of rows in `figures` or `attack_figures`, named in its RECORDED by the table that it draws;
  `style` has the curves, marks and points that figures share. `cmx study` draws it.
- A drawing: a function in `drawings` that stands before an idea's code; no rows, only boxes, arrows and toy images.
- A claim: a function of rows in `rules` that gives (verdict, sentence), and a line in CLAIMS of `claims`; its rule
  stands in the docstring, and where the rows that it asks for are not measured it raises a LookupError.
- A chapter: a notebook of the form that `chapters` describes; solutions under the same name in `notebooks/solutions`.
  The right number of an exercise that its own check would give away is a line, hashed, in RIGHT of `answers`.
"""
