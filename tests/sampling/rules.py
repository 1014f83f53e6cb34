"""The rules of budgets, as plainly as they can be written."""

from zaya_jax.sampling.decode import LENGTH, RUNNING, STOP


def rules(request, wanted):
    """What is drawn if the model wants these tokens one after the other, and why it ends."""
    start, end = request.think_ids or (None, None)
    thinking_budget, answer_budget = request.thinking_budget, request.answer_budget
    force = request.force_end and answer_budget != 0
    drawn, thinking, thought, answered = [], request.in_thinking, 0, 0
    for want in wanted:
        spent = thinking_budget is not None and thought >= thinking_budget
        token = end if thinking and force and spent else want
        drawn.append(token)
        if token in request.stop_ids or (token == end and answer_budget == 0):
            return drawn, STOP
        if token == start:
            thinking = True
        elif token == end:
            thinking = False
        elif thinking:
            thought += 1
        else:
            answered += 1
        thoughts_spent = thinking_budget is not None and thought >= thinking_budget and not force
        answers_spent = answer_budget is not None and answered >= answer_budget
        if (thinking and thoughts_spent) or (not thinking and answers_spent):
            return drawn, LENGTH
        if len(drawn) >= request.max_new_tokens:
            return drawn, LENGTH
    return drawn, RUNNING
