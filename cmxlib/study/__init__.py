"""What is measured, and the rows that tell it: `results/<scale>/<table>.csv`.

    records       rows: written, read, and where they come from; reading needs neither torch nor what measures
    scales        "quick", "small" and "paper", or a Scale of one's own, and the trained model of each
    table         the one way to record: a Table, and the runner that measures what it lacks
    tables        all tables, and their measuring one after the other
    sweep         their units in many processes; grid: a sweep of one's own, from a file
    command       what `cmx study` does with its arguments
    sampling      the mean over wrong keys, from as many images of each as it needs
    limits        what the recording and the scheduling of a unit cost
    networks, generality, architectures, anatomy, conventional, images, recovered, repairs, stolen, adversarial,
    benchmarks    one module for each family of tables

A Table is its name, its units (dicts of the columns that it varies), a function that measures one unit and gives rows,
and what the rows are measured over. To add one, declare it in a module of its family and list it in `tables.TABLES`.
"""
