#!/usr/bin/env bash
# A trial read from Optuna's in-memory storage before it ends later has its values and attributes, but not its end.
#
# Expected: what `get_trials(deepcopy=False)` returned is either a snapshot, which stays as it was, or the trial itself,
# which changes with it. Both storages replace a stored trial by a changed copy, so a snapshot seems to be the rule.
# Seen with optuna 5.0.0, Python 3.11: with InMemoryStorage the trial read before has the parameter, the attribute and
# the intermediate value that came later, but is RUNNING without a value after `tell`, because `optuna.Trial` writes what
# it is told into the object that it read itself. With RDBStorage it stays empty. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet optuna==5.0.0
cat > "$folder/program.py" <<'PYTHON'
import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
for storage in (optuna.storages.InMemoryStorage(), optuna.storages.RDBStorage("sqlite:///:memory:")):
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    held = study.get_trials(deepcopy=False)[0]
    trial.suggest_int("x", 3, 3)
    trial.set_user_attr("a", 1)
    trial.report(0.5, 1)
    study.tell(trial, 1.0)
    now = study.get_trials(deepcopy=False)[0]
    for name, each in (("held", held), ("now", now)):
        contents = (each.params, each.user_attrs, each.intermediate_values, each.state.name, each.value)
        print(type(storage).__name__, name, *contents)
PYTHON
"$folder/venv/bin/python" "$folder/program.py" | tee "$folder/output"
diff "$folder/output" - <<'TEXT'
InMemoryStorage held {'x': 3} {'a': 1} {1: 0.5} RUNNING None
InMemoryStorage now {'x': 3} {'a': 1} {1: 0.5} COMPLETE 1.0
RDBStorage held {} {} {} RUNNING None
RDBStorage now {'x': 3} {'a': 1} {1: 0.5} COMPLETE 1.0
TEXT
