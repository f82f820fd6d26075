"""The original's learning-rate schedules, as plain arithmetic on the step number."""

from deeplab.config import TrainingConfig


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The rate with which the step after ``step`` completed ones is taken.

    With s counted from the end of the slow start: poly is (base - end) * (1 - s / length)^power + end, step is
    base * factor^(s // decay_step). Adam ignores both and uses its own constant rate.
    """
    if config.optimizer == "adam":
        return config.adam_learning_rate
    if step < config.slow_start_step:
        return config.slow_start_learning_rate
    step -= config.slow_start_step
    if config.learning_policy == "step":
        decays = step // config.learning_rate_decay_step
        return config.base_learning_rate * config.learning_rate_decay_factor**decays
    length = config.decay_steps or config.training_number_of_steps - config.slow_start_step
    done = min(step, length)
    span = config.base_learning_rate - config.end_learning_rate
    return span * (1.0 - done / length) ** config.learning_power + config.end_learning_rate
