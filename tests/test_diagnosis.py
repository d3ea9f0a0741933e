"""When a search stops, what it tells is true."""

import pytest
import toy

from esnac_tf.compression import search_students
from esnac_tf.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*better than chance")


def test_after_the_last_step_has_failed_more_steps_or_another_folder_go_on(tmp_path):
    def search(folder, **settings):
        settings = {**toy.SHORT, "num_steps": 1, "full_epochs": 0, **settings}
        run_dir = tmp_path / folder
        return search_students(
            toy.teacher(), toy.TRAIN, toy.VALIDATION, run_dir=run_dir, **settings
        )

    failing = {"search_learning_rate": 1e38}
    with pytest.raises(UserError) as caught:
        search("run", **failing)
    first, second = str(caught.value).splitlines()
    assert first.startswith("All 3 students of step 1 failed: loss became ")
    assert "another --run_dir, or the same one with more --num_steps" in second
    assert "same command" not in second
    with pytest.raises(UserError, match="no complete trial"):
        search("run", **failing)
    with pytest.raises(UserError, match="students of step 2 failed"):
        search("run", num_steps=2, **failing)
    assert search("other").students
