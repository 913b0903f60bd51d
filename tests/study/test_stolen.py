import pandas as pd
import pytest

from cmxlib.study.stolen import chosen_rate


def test_the_lowest_rate_that_is_as_good_as_the_best_is_chosen():
    found = {0.01: 0.50, 0.02: 0.796, 0.04: 0.80, 0.08: 0.30}
    rows = [{"method": "embedding", "measure": "accuracy", "rate": rate, "value": v} for rate, v in found.items()]
    rows += [{"method": "everything", "measure": "accuracy", "rate": 0.01, "value": 0.9}]
    rates = pd.DataFrame(rows[::-1])
    assert chosen_rate(rates, "embedding") == 0.02 and chosen_rate(rates, "everything") == 0.01
    with pytest.raises(LookupError, match="no row of the method 'from nothing'"):
        chosen_rate(rates, "from nothing")
