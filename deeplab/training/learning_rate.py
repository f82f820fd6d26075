"""The original's learning-rate schedules, as plain arithmetic on the step number."""

from deeplab.config import TrainingConfig


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The rate with which the step after ``step`` completed ones is taken.

    poly: (base - end) * (1 - s / length)^power + end, with s counted from the end of the slow start;
    step: base * factor^(s // decay_step). Adam ignores both and uses its own constant rate.
    """
    if config.optimizer == "adam":
        return config.adam_learning_rate
    if step < config.slow_start_step:
        return config.slow_start_learning_rate
    if config.learning_policy == "step":
        return config.base_learning_rate * config.learning_rate_decay_factor ** (
            step // config.learning_rate_decay_step
        )
    length = config.decay_steps or config.training_number_of_steps - config.slow_start_step
    done = min(step - config.slow_start_step, length)
    span = config.base_learning_rate - config.end_learning_rate
    return span * (1.0 - done / length) ** config.learning_power + config.end_learning_rate
