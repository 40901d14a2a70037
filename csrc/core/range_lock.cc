// An interval treap: nodes are the locks themselves, ordered by (offset, ticket), heap-ordered by a
// random priority, each with the highest end of its subtree, so that the overlaps of a range are
// found in O(log n + found).
#include "core/range_lock.h"

#include <algorithm>
#include <cassert>

namespace tidemark {
namespace {

// splitmix64 of the ticket: as good as random for a treap, and the same in every run.
uint32_t priority_of(uint64_t ticket) {
  uint64_t z = ticket * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<uint32_t>(z >> 32);
}

bool before(const RangeLock& a, const RangeLock& b) {
  return a.range.offset != b.range.offset ? a.range.offset < b.range.offset : a.ticket < b.ticket;
}

void update(RangeLock* node) {
  node->end_max = node->range.end();
  if (node->left != nullptr) node->end_max = std::max(node->end_max, node->left->end_max);
  if (node->right != nullptr) node->end_max = std::max(node->end_max, node->right->end_max);
}

// Splits into what is before `key` and the rest.
void split(RangeLock* node, const RangeLock& key, RangeLock** less, RangeLock** rest) {
  if (node == nullptr) {
    *less = nullptr;
    *rest = nullptr;
  } else if (before(*node, key)) {
    split(node->right, key, &node->right, rest);
    *less = node;
    update(node);
  } else {
    split(node->left, key, less, &node->left);
    *rest = node;
    update(node);
  }
}

RangeLock* merge(RangeLock* less, RangeLock* rest) {
  if (less == nullptr) return rest;
  if (rest == nullptr) return less;
  if (less->priority > rest->priority) {
    less->right = merge(less->right, rest);
    update(less);
    return less;
  }
  rest->left = merge(less, rest->left);
  update(rest);
  return rest;
}

RangeLock* insert(RangeLock* node, RangeLock* lock) {
  if (node == nullptr || lock->priority > node->priority) {
    split(node, *lock, &lock->left, &lock->right);
    update(lock);
    return lock;
  }
  RangeLock*& side = before(*lock, *node) ? node->left : node->right;
  side = insert(side, lock);
  update(node);
  return node;
}

RangeLock* remove(RangeLock* node, RangeLock* lock) {
  assert(node != nullptr);
  if (node == lock) return merge(node->left, node->right);
  RangeLock*& side = before(*lock, *node) ? node->left : node->right;
  side = remove(side, lock);
  update(node);
  return node;
}

bool conflict(const RangeLock& a, bool exclusive) { return a.exclusive || exclusive; }

// Visits every lock that overlaps `range`; stops when `visit` returns false.
template <typename Visit>
bool each_overlap(RangeLock* node, const ByteRange& range, const Visit& visit) {
  while (node != nullptr && node->end_max > range.offset) {
    if (!each_overlap(node->left, range, visit)) return false;
    if (node->range.offset >= range.end()) return true;
    if (node->range.overlaps(range) && !visit(node)) return false;
    node = node->right;
  }
  return true;
}

// Sorts a list of locks, linked by `next`, by ticket.
RangeLock* sort_by_ticket(RangeLock* list) {
  if (list == nullptr || list->next == nullptr) return list;
  RangeLock* slow = list;
  for (RangeLock* fast = list->next; fast != nullptr && fast->next != nullptr;
       fast = fast->next->next) {
    slow = slow->next;
  }
  RangeLock* second = sort_by_ticket(slow->next);
  slow->next = nullptr;
  RangeLock* first = sort_by_ticket(list);
  RangeLock* sorted = nullptr;
  RangeLock** tail = &sorted;
  while (first != nullptr && second != nullptr) {
    RangeLock*& older = first->ticket < second->ticket ? first : second;
    *tail = older;
    tail = &older->next;
    older = older->next;
  }
  *tail = first != nullptr ? first : second;
  return sorted;
}

}  // namespace

bool RangeLocks::acquire(RangeLock* lock) {
  assert(!lock->queued && lock->range.length > 0);
  assert(lock->range.offset <= UINT64_MAX - lock->range.length);
  lock->waiting_for = 0;
  each_overlap(root_, lock->range, [&](RangeLock* other) {
    if (conflict(*other, lock->exclusive)) ++lock->waiting_for;
    return true;
  });
  lock->ticket = next_ticket_++;
  lock->priority = priority_of(lock->ticket);
  lock->left = nullptr;
  lock->right = nullptr;
  lock->next = nullptr;
  lock->queued = true;
  lock->granting = false;
  lock->held = lock->waiting_for == 0;
  assert(lock->held || lock->granted != nullptr);
  root_ = insert(root_, lock);
  ++(lock->held ? held_ : waiting_);
  return lock->held;
}

void RangeLocks::release(RangeLock* lock) {
  assert(lock->queued);
  root_ = remove(root_, lock);
  --(lock->held ? held_ : waiting_);
  if (lock->granting) remove_due(lock);
  lock->queued = false;
  lock->held = false;

  RangeLock* granted = nullptr;
  each_overlap(root_, lock->range, [&](RangeLock* other) {
    if (other->ticket < lock->ticket || !conflict(*other, lock->exclusive)) return true;
    assert(other->waiting_for > 0);
    if (--other->waiting_for == 0) {
      other->next = granted;
      granted = other;
    }
    return true;
  });
  for (RangeLock* next = sort_by_ticket(granted); next != nullptr;) {
    RangeLock* due = next;
    next = due->next;
    due->held = true;
    --waiting_;
    ++held_;
    append_due(due);
  }

  if (calling_) return;
  calling_ = true;
  while (due_first_ != nullptr) {
    RangeLock* due = due_first_;
    remove_due(due);
    due->granted(due->context, due);  // may end the lock's life
  }
  calling_ = false;
}

void RangeLocks::append_due(RangeLock* lock) {
  lock->granting = true;
  lock->next = nullptr;
  (due_first_ == nullptr ? due_first_ : due_last_->next) = lock;
  due_last_ = lock;
}

void RangeLocks::remove_due(RangeLock* lock) {
  RangeLock* previous = nullptr;
  for (RangeLock* at = due_first_; at != lock; at = at->next) previous = at;
  (previous == nullptr ? due_first_ : previous->next) = lock->next;
  if (due_last_ == lock) due_last_ = previous;
  lock->next = nullptr;
  lock->granting = false;
}

bool RangeLocks::idle() const { return root_ == nullptr; }

bool RangeLocks::conflicts(ByteRange range, bool exclusive) const {
  assert(range.length > 0);
  return !each_overlap(root_, range,
                       [&](RangeLock* other) { return !conflict(*other, exclusive); });
}

uint32_t RangeLocks::held() const { return held_; }
uint32_t RangeLocks::waiting() const { return waiting_; }

}  // namespace tidemark
